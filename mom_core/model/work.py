"""The amount of work in each part of a prefill, from which progress and remaining time follow.

Work is counted in floating-point operations of linear layers and attention. Attention grows with
position, so the last chunk of a long prompt is many times the work of the first. A progress bar
that counted tokens would seem to stall at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mom_core.model.seam.decoder import HFSeam

# In the last layer, all tokens but the last only store keys and values.
_LAST_LAYER_LINEAR_SHARE = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape:
    """The sizes of one layer that its work depends on.

    Args:
        linear_parameters: number of weights in the layer's linear parts.
        attention_width: width of attention, H x D; 0 for a recurrent layer.
        window: window W; None for full attention.
    """

    linear_parameters: int
    attention_width: int
    window: int | None


def layer_shapes(seam: HFSeam) -> list[LayerShape]:
    """The shapes of a model's layers, in order."""
    return [
        LayerShape(
            linear_parameters=sum(p.numel() for p in layer.parameters() if p.dim() > 1),
            attention_width=0 if index in seam.recurrent_layers else seam.heads * seam.head_dim,
            window=seam.window_of_layer(index),
        )
        for index, layer in enumerate(seam.layers)
    ]


def chunk_flops(shape: LayerShape, start: int, end: int, *, is_last_layer: bool) -> float:
    """The operations of one layer on the tokens of a chunk.

    Args:
        shape: shape of the layer.
        start: position of the first token.
        end: position after the last token.
        is_last_layer: whether it is the model's last layer.
    """
    tokens = end - start
    linear = 2.0 * shape.linear_parameters * tokens
    if is_last_layer:
        return linear * _LAST_LAYER_LINEAR_SHARE
    return linear + 4.0 * shape.attention_width * _keys_seen(start, end, shape.window)


def _keys_seen(start: int, end: int, window: int | None) -> float:
    """The keys seen by all tokens of a chunk, summed: token p sees p + 1 keys, or at most W."""
    if window is None or end <= window:
        return (start + 1 + end) * (end - start) / 2
    if start >= window:
        return float(window) * (end - start)
    return _keys_seen(start, window, None) + float(window) * (end - window)
