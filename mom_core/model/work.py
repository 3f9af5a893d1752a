"""How much work each part of a prefill is: the measure behind progress and time left.

Counted in floating-point operations of the linear layers and of attention. Attention grows with
position, so the last chunk of a long prompt is many times the work of the first; a progress bar
that counted tokens would stall at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mom_core.model.seam.decoder import HFSeam

# The last layer stores keys and values and stops, for all tokens but the last.
_LAST_LAYER_LINEAR_SHARE = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape:
    """What the work of one layer depends on.

    Args:
        linear_parameters: weights of the layer's linear parts.
        attention_width: H x D.
        window: W, None for full attention.
    """

    linear_parameters: int
    attention_width: int
    window: int | None


def layer_shapes(seam: HFSeam) -> list[LayerShape]:
    """The shape of every layer of a model."""
    return [
        LayerShape(
            linear_parameters=sum(p.numel() for p in layer.parameters() if p.dim() > 1),
            attention_width=0 if index in seam.recurrent_layers else seam.heads * seam.head_dim,
            window=seam.window_of_layer(index),
        )
        for index, layer in enumerate(seam.layers)
    ]


def chunk_flops(shape: LayerShape, start: int, end: int, *, is_last_layer: bool) -> float:
    """Operations of one layer over the tokens from position `start` to `end` (exclusive)."""
    tokens = end - start
    linear = 2.0 * shape.linear_parameters * tokens
    if is_last_layer:
        return linear * _LAST_LAYER_LINEAR_SHARE
    return linear + 4.0 * shape.attention_width * _keys_seen(start, end, shape.window)


def _keys_seen(start: int, end: int, window: int | None) -> float:
    """Keys seen by all tokens of a run together: token p sees p + 1 of them, or W."""
    if window is None or end <= window:
        return (start + 1 + end) * (end - start) / 2
    if start >= window:
        return float(window) * (end - start)
    return _keys_seen(start, window, None) + float(window) * (end - window)
