"""What each layer of a model stores of earlier tokens, and how wide it is."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel
from transformers.cache_utils import (
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionLayer,
)

from mom_core.errors import UnsupportedModel


@dataclass(frozen=True, slots=True)
class LayerWidths:
    """The parts of a layer with attention that its working memory depends on.

    Args:
        mlp: width of the MLP, F; for experts, the sum over all that one token passes.
        mlp_copies: number of tensors `[C, F]` alive at once.
        has_gated_query: whether the query projection also yields a gate of the query's width.
        has_head_norm: whether queries and keys are normalised per head.
        rotary_share: share of the head dimension D that is rotated, 0 to 1.
    """

    mlp: int
    mlp_copies: int
    has_gated_query: bool
    has_head_norm: bool
    rotary_share: float


@dataclass(frozen=True, slots=True)
class LayerKind:
    """What a layer stores of earlier tokens.

    Args:
        is_recurrent: whether it stores a state instead of keys and values.
        window: window W of sliding-window attention; None for full attention.
    """

    is_recurrent: bool
    window: int | None = None


def layer_kinds(model: PreTrainedModel, layers: int) -> list[LayerKind]:
    """The kind of every layer, from the cache that transformers would create for the model.

    Args:
        model: the model.
        layers: number of decoder layers, L.

    Raises:
        UnsupportedModel: a layer stores something else, or shares what it stores.
    """
    config = model.config.get_text_config(decoder=True)
    name = type(model).__name__
    shared = getattr(config, "num_kv_shared_layers", 0) or 0
    if shared:
        raise UnsupportedModel(
            f"{name} has {shared} layers that use the keys and values of other layers. mom-chat "
            "runs one layer at a time, each with its own, and cannot run this model exactly."
        )
    chunked = "chunked_attention" in (getattr(config, "layer_types", None) or ())
    made = DynamicCache(config=config).layers
    kinds: list[LayerKind] = []
    for layer in made:
        if type(layer) is LinearAttentionLayer and layer.number_of_states == 1:
            kinds.append(LayerKind(is_recurrent=True))
        elif type(layer) is DynamicSlidingWindowLayer and not chunked:
            kinds.append(LayerKind(is_recurrent=False, window=int(layer.sliding_window)))
        elif type(layer) is DynamicLayer:
            kinds.append(LayerKind(is_recurrent=False))
        else:
            kind = "chunked attention" if chunked else type(layer).__name__
            raise UnsupportedModel(
                f"{name} has layers of a kind that mom-chat cannot run exactly ({kind}). Layers "
                "that it can run have full attention, a sliding window, linear attention or a "
                "short convolution."
            )
    if len(kinds) != layers:
        raise UnsupportedModel(
            f"{name} has {layers} layers, but transformers creates a cache of {len(kinds)} layers "
            "for it. mom-chat cannot run it layer by layer."
        )
    return kinds
