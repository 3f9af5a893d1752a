"""The forecast of time: operations and bytes over the rates of a machine.

Reading is bound by arithmetic: products of many rows, attention, and passes over memory between
them. Answering is bound by memory: each token reads all weights and all keys and values.

Source: ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from mom_core.forecast.shape import ModelShape
from mom_core.hardware.known_rates import correction, rates_here
from mom_core.hardware.rates import Rates, passed_bytes
from mom_core.model.work import chunk_flops
from mom_core.strategy import Strategy

# Small operations of a layer for one token (calls from Python counted in).
_TOKEN_OPERATIONS = 90
# A few paragraphs, by which ways that read faster and ways that answer faster are compared.
_ANSWER_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """How long a run takes.

    Args:
        prefill_seconds: to read the prompt.
        token_seconds: for each token of the answer.
    """

    prefill_seconds: float
    token_seconds: float


def rates_for(
    shape: ModelShape,
    dtype: torch.dtype,
    device: torch.device,
    *,
    how: Callable[..., Rates] = rates_here,
) -> Rates:
    """This machine's rates for such a model; measured the first time.

    Args:
        shape: the model's numbers.
        dtype: its weights' dtype.
        device: where it runs.
        how: `measure_rates` measures in any case.
    """
    return how(
        dtype,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        hidden=shape.hidden,
        mlp=shape.mlp,
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
        shape: the model's numbers.
        tokens: S, of the prompt.
        strategy: how it runs.
        rates: the machine's, in the model's dtype.
        reused_tokens: tokens of the prompt that need not be read.
    """
    run = _RunCosts(shape, tokens, reused_tokens, rates)
    return Duration(
        prefill_seconds=run.prefill_seconds(strategy), token_seconds=run.token_seconds(strategy)
    )


def run_seconds(shape: ModelShape, tokens: int, rates: Rates) -> Callable[[Strategy], float]:
    """Seconds of each way to read a prompt and write a usual answer, for `decide` to rank them.

    Args:
        shape: the model's numbers.
        tokens: S, of the prompt.
        rates: the machine's.
    """
    run = _RunCosts(shape, tokens, 0, rates)

    def seconds(strategy: Strategy) -> float:
        return run.prefill_seconds(strategy) + _ANSWER_TOKENS * run.token_seconds(strategy)

    return seconds


class _RunCosts:
    """What is the same for every way to run a prompt, once; then each way's seconds."""

    def __init__(self, shape: ModelShape, tokens: int, reused_tokens: int, rates: Rates) -> None:
        self.shape = shape
        self.tokens = tokens
        self.reused_tokens = reused_tokens
        self.new_tokens = tokens - reused_tokens
        self.rates = rates
        self._computed_seconds: dict[bool, float] = {}

    def prefill_seconds(self, strategy: Strategy) -> float:
        """To read what is new of the prompt."""
        computing = self._computing_seconds(strategy)
        shape, rates = self.shape, self.rates
        if not self.new_tokens:
            return 0.0
        kv_bytes = self.new_tokens * shape.kv_bytes_per_token
        read_kv_bytes = self.reused_tokens * shape.kv_bytes_per_token
        hidden_bytes = (len(shape.layers) - 1) * self.new_tokens * shape.hidden * shape.dtype_bytes
        up = down = disk = 0.0
        is_ours = strategy.name == "layer-streaming"
        if strategy.kv != "device":
            up, down = up + read_kv_bytes, down + kv_bytes
            disk += kv_bytes + read_kv_bytes if strategy.kv == "disk" else 0
        if is_ours and strategy.hidden != "device":
            up, down = up + hidden_bytes, down + hidden_bytes
            disk += 2 * hidden_bytes if strategy.hidden == "disk" else 0
        if strategy.weights == "stream":
            up += sum(shape.layers_bytes)
            disk += sum(shape.layers_bytes) if strategy.weights_home == "disk" else 0
        # Files are copied when they are asked for; page-locked memory beside the computation.
        seconds = disk / rates.disk_bytes_per_second
        if strategy.device_type == "cuda":
            seconds += max(computing, max(up, down) / rates.bus_bytes_per_second)
        else:
            seconds += computing + (up + down) / rates.bus_bytes_per_second
        if strategy.kv != "device" and strategy.decode == "device":
            seconds += self.tokens * shape.kv_bytes_per_token / rates.bus_bytes_per_second
        return seconds

    def token_seconds(self, strategy: Strategy) -> float:
        """For each token of the answer: all weights and all keys and values are read."""
        shape, rates = self.shape, self.rates
        # The embeddings are looked up, not multiplied; tied ones are the head.
        layers_bytes = sum(shape.layers_bytes)
        weights_bytes = layers_bytes + shape.vocabulary * shape.hidden * shape.dtype_bytes
        kv_bytes = self.tokens * shape.kv_bytes_per_token
        small = len(shape.layers) * _TOKEN_OPERATIONS * rates.operation_seconds
        up = disk = 0.0
        if strategy.decode == "host":
            on_device, on_host = weights_bytes, kv_bytes
            disk += kv_bytes if strategy.kv == "disk" else 0
        else:
            on_device, on_host = weights_bytes + kv_bytes, 0
            up += kv_bytes if strategy.decode == "stream" else 0
        if strategy.weights == "stream":
            up += layers_bytes
            disk += layers_bytes if strategy.weights_home == "disk" else 0
        return (
            max(on_device / rates.one_row_bytes_per_second, up / rates.bus_bytes_per_second)
            + on_host / rates.host_row_bytes_per_second
            + disk / rates.disk_bytes_per_second
            + small
        )

    def _computing_seconds(self, strategy: Strategy) -> float:
        shape, rates = self.shape, self.rates
        skips_last = strategy.name == "layer-streaming"
        if skips_last not in self._computed_seconds:
            self._computed_seconds[skips_last] = self._computed(skips_last=skips_last)
        is_cut = strategy.name in ("layer-streaming", "chunked")
        chunks = -(-self.new_tokens // strategy.chunk_tokens) if is_cut else 1
        calls = chunks * len(shape.layers) * rates.layer_call_seconds
        return self._computed_seconds[skips_last] + calls

    def _computed(self, *, skips_last: bool) -> float:
        """Seconds of products, attention and passes over memory."""
        shape, rates = self.shape, self.rates
        linear_flops = attention_flops = 0.0
        for index, layer in enumerate(shape.layers):
            is_last = skips_last and index + 1 == len(shape.layers)
            total = chunk_flops(layer, self.reused_tokens, self.tokens, is_last_layer=is_last)
            linear = total if is_last else 2.0 * layer.linear_parameters * self.new_tokens
            linear_flops += linear
            attention_flops += total - linear
        passed = passed_bytes(
            self.new_tokens,
            hidden=shape.hidden,
            query=shape.heads * shape.head_dim,
            mlp=shape.mlp,
            dtype_bytes=shape.dtype_bytes,
        )
        return (
            linear_flops / rates.linear_flops_per_second
            + attention_flops / rates.attention_flops_per_second
            + len(shape.layers) * passed / rates.elementwise_bytes_per_second
        )
