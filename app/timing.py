"""Forecasts of time for the model at hand, corrected by what its runs really took."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from mom_core.engine import Engine
    from mom_core.events import Finished
    from mom_core.memory.duration import Duration
    from mom_core.memory.rates import Rates
    from mom_core.memory.shape import ModelShape

# Shorter runs are made of other things than their tokens.
_LEAST_READ_TOKENS = 1000
_LEAST_STEPS = 16


def rates_for(shape: ModelShape, dtype: torch.dtype, device: torch.device) -> Rates:
    """This machine's rates for such a model; measured the first time."""
    from mom_core.memory.rates import rates_here

    return rates_here(
        dtype,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        device=device,
    )


def corrected(duration: Duration, shape: ModelShape, device: torch.device) -> Duration:
    """A forecast by rates alone, multiplied by what earlier runs of the model took beyond it."""
    from mom_core.memory.duration import Duration
    from mom_core.memory.rates import correction

    return Duration(
        prefill_seconds=duration.prefill_seconds * correction(shape.signature, "prefill", device),
        token_seconds=duration.token_seconds * correction(shape.signature, "decode", device),
    )


def learn(engine: Engine, finished: Finished) -> None:
    """Remembers what a run took, so that the next forecast is nearer.

    Only runs that read a whole prompt, and answers without drafts, say something of the rates.
    """
    from mom_core.memory.duration import forecast_duration
    from mom_core.memory.rates import correct
    from mom_core.memory.strategy import Strategy

    is_whole = not finished.reused_tokens and finished.prompt_tokens >= _LEAST_READ_TOKENS
    is_plain = finished.tokens_per_step == 1 and finished.decode_steps >= _LEAST_STEPS
    if not is_whole and not is_plain:
        return
    shape, device = engine.shape, engine.device
    is_cuda = device.type == "cuda"
    strategy = Strategy.named("layer-streaming", device_type="cuda" if is_cuda else "cpu")
    rates = rates_for(shape, engine.dtype, device)
    forecast = forecast_duration(shape, finished.prompt_tokens, strategy, rates)
    if is_whole:
        correct(
            shape.signature,
            "prefill",
            forecast_seconds=forecast.prefill_seconds,
            real_seconds=finished.prefill_seconds,
            device=device,
        )
    if is_plain:
        correct(
            shape.signature,
            "decode",
            forecast_seconds=forecast.token_seconds,
            real_seconds=finished.decode_seconds / finished.decode_steps,
            device=device,
        )
