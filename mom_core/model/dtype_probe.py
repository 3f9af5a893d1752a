"""Which dtype is fastest on this CPU, found by trying.

CPUs differ too much to know: with AMX, bf16 multiplies matrices many times faster than fp32;
with AVX2 alone it is tens of times slower. A short probe times the three things a run consists
of (matrix products of a chunk, attention, products with a single row) and predicts the time of a
typical run in each dtype.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mom_core.attention import partial_attention
from mom_core.model.cpu_linear import is_wide_faster
from mom_core.native import kernels

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# The typical run: a few pages read, an answer of a few paragraphs.
_READ_TOKENS = 4096
_WRITTEN_TOKENS = 256

_ROWS = 64
_PROBE_WIDTH = (1024, 2048)
_ONE_ROW_MATRICES = 8
_KEYS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """What the prediction needs of a model.

    Args:
        parameters: weights that every token passes.
        layers: L.
        heads: H.
        kv_heads: G.
        head_dim: D.
    """

    parameters: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int

    @classmethod
    def of(cls, config: PretrainedConfig) -> ModelSize:
        """Estimated from a config; good to some ten percent, which is enough to choose."""
        heads = config.num_attention_heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        width = config.hidden_size
        mlp = getattr(config, "intermediate_size", None) or 4 * width
        layer = width * head_dim * (2 * heads + 2 * kv_heads) + 3 * width * mlp
        return cls(
            parameters=layer * config.num_hidden_layers + width * config.vocab_size,
            layers=config.num_hidden_layers,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
        )


def fastest_cpu_dtype(size: ModelSize) -> torch.dtype:
    """fp32 or bf16, whichever a typical run of such a model is predicted to be faster in."""
    # Loaded in one dtype for the whole run, so it is the total that counts.
    return min((torch.float32, torch.bfloat16), key=lambda dtype: predicted_seconds(size, dtype))


def predicted_seconds(size: ModelSize, dtype: torch.dtype) -> float:
    """Seconds of a typical run in this dtype, from a probe of some tens of milliseconds."""
    width_in, width_out = _PROBE_WIDTH
    chunk = torch.ones(_ROWS, width_in, dtype=dtype)
    weights = [torch.ones(width_out, width_in, dtype=dtype) for _ in range(_ONE_ROW_MATRICES)]
    query = torch.ones(1, size.heads, _ROWS, size.head_dim, dtype=dtype)
    keys = torch.ones(1, size.kv_heads, _KEYS, size.head_dim, dtype=dtype)

    # The widening itself is nothing beside the rows of a chunk.
    is_widened = dtype is torch.bfloat16 and is_wide_faster()
    many, weight = (chunk.float(), weights[0].float()) if is_widened else (chunk, weights[0])
    gemm_seconds = _best_seconds(lambda: torch.nn.functional.linear(many, weight))
    flops_per_second = 2 * _ROWS * width_in * width_out / gemm_seconds
    attention_seconds = _best_seconds(lambda: partial_attention(query, keys, keys, scale=1.0))
    attention_flops = 4 * size.heads * size.head_dim
    attention_rate = attention_flops * _ROWS * _KEYS / attention_seconds

    ours = kernels()

    def one_row() -> None:
        for weight in weights:
            if ours is None:
                torch.nn.functional.linear(chunk[:1], weight)
            else:
                ours.linear_rows(chunk[:1], weight, None)

    row_seconds = _best_seconds(one_row)
    elements_per_second = width_in * width_out * _ONE_ROW_MATRICES / row_seconds

    reading = 2 * size.parameters * _READ_TOKENS / flops_per_second
    reading += size.layers * attention_flops * _READ_TOKENS**2 / 2 / attention_rate
    kv_elements = 2 * size.layers * size.kv_heads * size.head_dim * _READ_TOKENS
    writing = _WRITTEN_TOKENS * (size.parameters + kv_elements) / elements_per_second
    return reading + writing


def _best_seconds(work: Callable[[], object], repeats: int = 3) -> float:
    work()
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best
