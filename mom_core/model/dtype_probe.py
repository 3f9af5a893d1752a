"""Which dtype is fastest on this CPU, found by trying.

CPUs differ too much to know: with AMX, bf16 multiplies matrices many times faster than fp32;
with AVX2 alone it is tens of times slower. From this machine's rates in each dtype, measured by a
short probe and kept, the time of a typical run is predicted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mom_core.hardware.known_rates import rates_here
from mom_core.hardware.rates import passed_bytes

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# The typical run: a few pages read, an answer of a few paragraphs.
_READ_TOKENS = 4096
_WRITTEN_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """What the prediction needs of a model.

    Args:
        parameters: weights that every token passes.
        layers: L.
        heads: H.
        kv_heads: G.
        head_dim: D.
        hidden: E.
        mlp: F.
    """

    parameters: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    mlp: int

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
            hidden=width,
            mlp=mlp,
        )


def fastest_cpu_dtype(size: ModelSize) -> torch.dtype:
    """fp32 or bf16, whichever a typical run of such a model is predicted to be faster in."""
    # Loaded in one dtype for the whole run, so it is the total that counts.
    return min((torch.float32, torch.bfloat16), key=lambda dtype: predicted_seconds(size, dtype))


def predicted_seconds(size: ModelSize, dtype: torch.dtype) -> float:
    """Seconds of a typical run in this dtype, from this machine's rates."""
    rates = rates_here(
        dtype,
        heads=size.heads,
        kv_heads=size.kv_heads,
        head_dim=size.head_dim,
        hidden=size.hidden,
        mlp=size.mlp,
    )
    attention_flops = 4 * size.heads * size.head_dim
    passed = passed_bytes(
        _READ_TOKENS,
        hidden=size.hidden,
        query=size.heads * size.head_dim,
        mlp=size.mlp,
        dtype_bytes=dtype.itemsize,
    )
    reading = (
        2 * size.parameters * _READ_TOKENS / rates.linear_flops_per_second
        + size.layers * attention_flops * _READ_TOKENS**2 / 2 / rates.attention_flops_per_second
        + size.layers * passed / rates.elementwise_bytes_per_second
    )
    kv_elements = 2 * size.layers * size.kv_heads * size.head_dim * _READ_TOKENS
    read_bytes = (size.parameters + kv_elements) * dtype.itemsize
    return reading + _WRITTEN_TOKENS * read_bytes / rates.one_row_bytes_per_second
