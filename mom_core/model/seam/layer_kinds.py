"""What each layer of a model keeps, and what it is made of."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import (
    PreTrainedModel,
)
from transformers.cache_utils import (
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionLayer,
)

from mom_core.errors import UnsupportedModel


@dataclass(frozen=True, slots=True)
class LayerWidths:
    """What a layer with attention is made of, as far as its working memory depends on it.

    Args:
        mlp: F; of experts, all that one token passes.
        mlp_copies: how many `[C, F]` are alive at once.
        has_gated_query: the query projection also gives a gate of the query's width.
        has_head_norm: queries and keys are normed by head.
        rotary_share: the share of D that is rotated.
    """

    mlp: int
    mlp_copies: int
    has_gated_query: bool
    has_head_norm: bool
    rotary_share: float


@dataclass(frozen=True, slots=True)
class LayerKind:
    """What a layer keeps of the tokens before.

    Args:
        is_recurrent: a state; else keys and values.
        window: W of sliding-window attention, None for full attention.
    """

    is_recurrent: bool
    window: int | None = None


def layer_kinds(model: PreTrainedModel, layers: int) -> list[LayerKind]:
    """Of every layer, by the cache that transformers itself would make for this configuration.

    Raises:
        UnsupportedModel: a layer keeps something else, or not for itself.
    """
    config = model.config.get_text_config(decoder=True)
    name = type(model).__name__
    shared = getattr(config, "num_kv_shared_layers", 0) or 0
    if shared:
        raise UnsupportedModel(
            f"{name} has {shared} layers that use the keys and values of other layers. "
            "mom-chat reads layer by layer, each with its own, and cannot run it exactly."
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
                "with full attention, a sliding window, linear attention or a short convolution "
                "can be used."
            )
    if len(kinds) != layers:
        raise UnsupportedModel(
            f"{name} has {layers} layers, and transformers makes a cache of {len(kinds)} for it. "
            "It cannot be run layer by layer."
        )
    return kinds
