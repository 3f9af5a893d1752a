"""What runs really took is kept, to correct the forecasts of time for their model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mom_core.engine import Engine
    from mom_core.events import Finished

# Shorter runs are made of other things than their tokens.
_LEAST_READ_TOKENS = 1000
_LEAST_STEPS = 16


def learn(engine: Engine, finished: Finished) -> None:
    """Remembers what a run took, so that the next forecast is nearer.

    Only runs that read a whole prompt, and answers without drafts, say something of the rates.
    """
    from mom_core.forecast.seconds import forecast_duration, rates_for
    from mom_core.hardware.known_rates import correct

    is_whole = not finished.reused_tokens and finished.prompt_tokens >= _LEAST_READ_TOKENS
    is_plain = finished.tokens_per_step == 1 and finished.decode_steps >= _LEAST_STEPS
    if not is_whole and not is_plain:
        return
    shape, device = engine.shape, engine.device
    if engine.last_decision is None:
        return
    strategy = engine.last_decision.forecast.strategy
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
