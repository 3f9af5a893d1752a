"""Which dtype is faster for a model on this CPU, from the machine's measured rates.

CPUs differ too much for a fixed rule. With AMX, bf16 multiplies matrices many times faster than
fp32; with AVX2 alone, it is tens of times slower. `mom_core.hardware` measures the rates in each
dtype once and stores them. Here they predict the time of a typical run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mom_core.hardware.known_rates import rates_here
from mom_core.hardware.rates import passed_bytes

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# A typical run reads a few pages, and writes an answer of a few paragraphs.
_READ_TOKENS = 4096
_WRITTEN_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """The sizes of a model that the prediction needs.

    Args:
        parameters: number of weights that each token is multiplied with.
        layers: number of layers, L.
        heads: attention heads, H.
        kv_heads: key-value heads, G.
        head_dim: numbers per head, D.
        hidden: hidden size, E.
        mlp: width of the MLP, F.
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
        """An estimate from a config; it is right to about ten percent, enough to choose a dtype."""
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
    """The dtype, fp32 or bf16, that should be faster for a typical run of a model.

    Args:
        size: sizes of the model.
    """
    # A model keeps one dtype for the whole run, so the total time decides.
    return min((torch.float32, torch.bfloat16), key=lambda dtype: predicted_seconds(size, dtype))


def predicted_seconds(size: ModelSize, dtype: torch.dtype) -> float:
    """The seconds that a typical run should take on this CPU.

    Args:
        size: sizes of the model.
        dtype: dtype of the weights.
    """
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
