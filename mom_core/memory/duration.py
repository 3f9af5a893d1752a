"""The forecast of time: operations and bytes over the rates of a machine.

Reading is bound by arithmetic: products of many rows, attention, and passes over memory between
them. Answering is bound by memory: each token reads all weights and all keys and values.

Source: ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mom_core.generate.work import chunk_flops
from mom_core.memory.rates import Rates, correction, rates_here
from mom_core.memory.shape import ModelShape
from mom_core.memory.strategy import Strategy

# Reads and writes of a token in a layer beside products and attention, in `[., E]`, `[., H x D]`
# and `[., F]`: two norms in fp32 and two residuals; rotation; activation and gate.
_HIDDEN_PASSES = 24
_QUERY_PASSES = 12
_MLP_PASSES = 5
# Small operations of a layer over a chunk, and for one token (calls from Python counted in).
_OPERATIONS = 75
_TOKEN_OPERATIONS = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """How long a run takes.

    Args:
        prefill_seconds: to read the prompt.
        token_seconds: for each token of the answer.
    """

    prefill_seconds: float
    token_seconds: float


def rates_for(shape: ModelShape, dtype: torch.dtype, device: torch.device) -> Rates:
    """This machine's rates for such a model; measured the first time."""
    return rates_here(
        dtype,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        device=device,
    )


def corrected(duration: Duration, shape: ModelShape, device: torch.device | None) -> Duration:
    """A forecast by rates alone, multiplied by what earlier runs of the model took beyond it."""
    return Duration(
        prefill_seconds=duration.prefill_seconds * correction(shape.signature, "prefill", device),
        token_seconds=duration.token_seconds * correction(shape.signature, "decode", device),
    )


def forecast_duration(
    shape: ModelShape, tokens: int, strategy: Strategy, rates: Rates, *, reused_tokens: int = 0
) -> Duration:
    """Seconds of a run, by the rates alone.

    Args:
        shape: of the model.
        tokens: S, of the prompt.
        strategy: how it runs.
        rates: of the machine, in the dtype of the model.
        reused_tokens: of the prompt, how many are not read again.
    """
    new_tokens = tokens - reused_tokens
    skips_last = strategy.name == "layer-streaming"
    linear_flops = attention_flops = 0.0
    for index, layer in enumerate(shape.layers):
        is_last = skips_last and index + 1 == len(shape.layers)
        total = chunk_flops(layer, reused_tokens, tokens, is_last_layer=is_last)
        linear = total if is_last else 2.0 * layer.linear_parameters * new_tokens
        linear_flops += linear
        attention_flops += total - linear
    elements = (
        _HIDDEN_PASSES * shape.hidden
        + _QUERY_PASSES * shape.heads * shape.head_dim
        + _MLP_PASSES * shape.mlp
    )
    passed_bytes = len(shape.layers) * new_tokens * elements * shape.dtype_bytes
    is_cut = strategy.name in ("layer-streaming", "chunked")
    chunks = -(-new_tokens // strategy.chunk_tokens) if is_cut else 1
    prefill = (
        linear_flops / rates.linear_flops_per_second
        + attention_flops / rates.attention_flops_per_second
        + passed_bytes / rates.elementwise_bytes_per_second
        + chunks * len(shape.layers) * _OPERATIONS * rates.operation_seconds
    )
    # The embeddings are looked up, not multiplied; tied ones are the head.
    head_bytes = shape.vocabulary * shape.hidden * shape.dtype_bytes
    read_bytes = sum(shape.layers_bytes) + head_bytes + tokens * shape.kv_bytes_per_token
    token = (
        read_bytes / rates.one_row_bytes_per_second
        + len(shape.layers) * _TOKEN_OPERATIONS * rates.operation_seconds
    )
    return Duration(prefill_seconds=prefill, token_seconds=token)
