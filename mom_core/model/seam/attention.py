"""Our attention, registered with transformers under the name "mom"."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    DynamicCache,
    PretrainedConfig,
)
from transformers.masking_utils import and_masks, causal_mask_function, sliding_window_overlay

from mom_core.attention import Segment, segment_attention
from mom_core.errors import UnsupportedModel
from mom_core.kv.transfer import KVSink
from mom_core.model.seam.plain_layer import AttentionArguments

ATTENTION_NAME = "mom"
PROBE_NAME = "mom-probe"
PADDED = (
    "The attention 'mom' got a padded or packed batch. It reads one sequence without padding: "
    "pass one prompt and no attention mask."
)


def refuse_padding(attention_mask: Tensor | None, input_ids: Tensor | None = None) -> None:
    """Refuses a mask that hides tokens, which our attention would ignore.

    Args:
        attention_mask: mask `[1, T]`, non-zero where a token counts; None for no mask.
        input_ids: token ids `[B, C]`; None if unknown.

    Raises:
        UnsupportedModel: the mask hides a token or is of another shape, or B is not 1.
    """
    is_batch = input_ids is not None and input_ids.shape[0] != 1
    is_masked = attention_mask is not None and (
        attention_mask.dim() != 2 or attention_mask.shape[0] != 1 or not bool(attention_mask.all())
    )
    if is_batch or is_masked:
        raise UnsupportedModel(PADDED)


def no_mask(
    *args: Any,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int | Tensor = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> None:
    """Builds no mask, after checking that none beyond causal order and a window is needed.

    It replaces transformers' functions that build masks.

    Args:
        *args: further positional arguments from transformers; ignored.
        q_length: number of queries.
        kv_length: number of keys.
        q_offset: position of the first query.
        kv_offset: position of the first key.
        mask_function: transformers' function that decides which keys a query sees.
        attention_mask: mask `[1, T]`, non-zero where a token counts; None for no mask.
        **kwargs: further keyword arguments from transformers; ignored.

    Raises:
        UnsupportedModel: a mask would differ from causal order and a window, or the keys reach
            beyond the queries.
    """
    refuse_padding(attention_mask)
    if not _is_causal_or_window(mask_function):
        raise UnsupportedModel(
            "The attention 'mom' sees all earlier tokens, or those in a window. This call wants "
            "another mask (packed sequences, images, or a custom one): pass one plain text."
        )
    if int(kv_offset) + kv_length != int(q_offset) + q_length:
        raise UnsupportedModel(
            "The attention 'mom' got a cache with room for future tokens (a static cache). Use "
            "transformers' dynamic cache, or none."
        )


def _is_causal_or_window(mask: Callable[..., Any]) -> bool:
    """Whether a mask function of transformers is the causal one, with or without a window.

    Such functions are closures, recognised by their code.
    """
    if mask is causal_mask_function:
        return True
    code = getattr(mask, "__code__", None)
    if code is sliding_window_overlay(1).__code__:
        return True
    if code is not and_masks(causal_mask_function).__code__:
        return False
    return all(
        _is_causal_or_window(m) for m in inspect.getclosurevars(mask).nonlocals["mask_functions"]
    )


def mom_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """`segment_attention` behind the interface of transformers' attention functions.

    Args:
        module: attention module of a layer.
        query: queries `[1, H, Q, D]`.
        key: keys `[1, G, K, D]`: those of `SegmentCacheLayer.update`, or plain keys of all tokens.
        value: values `[1, G, K, D]`.
        attention_mask: must be None; a query sees what causal order and the window allow.
        scaling: factor on the scores; None for `D ** -0.5`.
        sliding_window: window W; None for no window.
        softcap: limit on the scores, as for `segment_attention`.
        s_aux: attention sinks `[H]`.
        **kwargs: further arguments from transformers (positions, dropout, ...); ignored.

    Returns:
        The output `[1, Q, H, D]`, and None in place of attention weights.

    Raises:
        UnsupportedModel: a mask or a batch was passed, or the attention is not causal.
    """
    if attention_mask is not None or query.shape[0] != 1:
        raise UnsupportedModel(PADDED)
    if not getattr(module, "is_causal", True):
        raise UnsupportedModel("The attention 'mom' is causal, but this layer's is not.")
    expected = _expected_window(module)
    if expected is not _UNKNOWN and expected != sliding_window:
        raise UnsupportedModel(
            f"By its configuration, a layer ({type(module).__name__}) has "
            f"{_window_words(expected)}, but it asks the attention 'mom' for "
            f"{_window_words(sliding_window)}. This model cannot be run exactly."
        )
    layer: KVSink | None = getattr(key, "mom_layer", None)
    segments = [Segment(0, key, value)] if layer is None else layer.segments()
    output = segment_attention(
        query,
        segments[-1].end - query.shape[2],
        segments,
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=sliding_window,
        softcap=softcap,
        sinks=s_aux,
    )
    return output.transpose(1, 2), None


class _Unknown:
    """The type of `_UNKNOWN`: a module does not say which layer it belongs to."""


_UNKNOWN = _Unknown()
_EXPECTED_WINDOWS: WeakKeyDictionary[nn.Module, int | _Unknown | None] = WeakKeyDictionary()


def _expected_window(module: nn.Module) -> int | _Unknown | None:
    """The window that transformers' mask for this attention module would have.

    Some families pass the window only to the mask, not to the attention function.
    """
    if module not in _EXPECTED_WINDOWS:
        config, index = getattr(module, "config", None), getattr(module, "layer_idx", None)
        found: int | _Unknown | None = _UNKNOWN
        if isinstance(config, PretrainedConfig) and isinstance(index, int):
            layers = DynamicCache(config=config).layers
            if index < len(layers):
                found = getattr(layers[index], "sliding_window", None)
        _EXPECTED_WINDOWS[module] = found
    return _EXPECTED_WINDOWS[module]


def _window_words(window: int | _Unknown | None) -> str:
    return "no window" if window is None else f"a window of {window} tokens"


def probe_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **asked: Any
) -> tuple[Tensor, None]:
    """`mom_attention`, which also records its arguments on the layer's `ProbeKV`.

    Args:
        module: attention module of a layer.
        query: queries `[1, H, Q, D]`.
        key: keys `[1, G, K, D]` from `SegmentCacheLayer.update`.
        value: values `[1, G, K, D]`.
        *args: further positional arguments of `mom_attention`.
        **asked: further keyword arguments of `mom_attention`.
    """
    scale = asked.get("scaling")
    key.mom_layer.arguments = AttentionArguments(  # type: ignore[attr-defined]
        query.shape[-1] ** -0.5 if scale is None else scale,
        asked.get("sliding_window"),
        asked.get("softcap"),
        asked.get("s_aux"),
    )
    return mom_attention(module, query, key, value, *args, **asked)


AttentionInterface.register(ATTENTION_NAME, mom_attention)
AttentionInterface.register(PROBE_NAME, probe_attention)
AttentionMaskInterface.register(ATTENTION_NAME, no_mask)
AttentionMaskInterface.register(PROBE_NAME, no_mask)
