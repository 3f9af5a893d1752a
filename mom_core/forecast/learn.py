"""What runs really took is kept, to correct the forecasts of time for their model."""

from __future__ import annotations

import torch

from mom_core.events import Finished
from mom_core.forecast.seconds import forecast_duration, rates_for
from mom_core.forecast.shape import ModelShape
from mom_core.hardware.known_rates import correct
from mom_core.strategy import Strategy

# Shorter runs are made of other things than their tokens.
_LEAST_READ_TOKENS = 1000
_LEAST_STEPS = 16


def learn(
    finished: Finished,
    shape: ModelShape,
    strategy: Strategy,
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Remembers what a run took, so that the next forecast is closer.

    Only runs that read a whole prompt, and answers without drafts, say anything about the rates.

    Args:
        finished: the end of the run.
        shape: the model's.
        strategy: the settings it ran with.
        dtype: the weights' dtype.
        device: where the model computes.
    """
    is_whole = not finished.reused_tokens and finished.prompt_tokens >= _LEAST_READ_TOKENS
    is_plain = finished.tokens_per_step == 1 and finished.decode_steps >= _LEAST_STEPS
    if not is_whole and not is_plain:
        return
    rates = rates_for(shape, dtype, device)
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
