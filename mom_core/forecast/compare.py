"""The strategies side by side for one model, length and machine: what `mom plan` shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mom_core.forecast.capacity import Machine
from mom_core.forecast.choose import (
    Candidate,
    Decision,
    Refusal,
    decide,
    longest_context_tokens,
    ranking,
)
from mom_core.forecast.peak_bytes import MemoryForecast, forecast_memory
from mom_core.forecast.seconds import Duration, forecast_duration
from mom_core.hardware.rates import Rates
from mom_core.strategy import STRATEGY_NAMES, Strategy, StrategyName


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyRow:
    """One strategy on one machine.

    Args:
        forecast: the memory it takes.
        duration: how long its run takes; None where the machine's rates are not known.
        longest_context_tokens: that fit.
        fits: whether the length asked for does.
    """

    forecast: MemoryForecast
    duration: Duration | None
    longest_context_tokens: int
    fits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All strategies, and what "auto" makes of it.

    Args:
        rows: by strategy, in their usual order.
        auto: the engine's settings, or why nothing fits.
    """

    rows: dict[StrategyName, StrategyRow]
    auto: Decision | Refusal

    @property
    def chosen(self) -> StrategyName | None:
        """What the engine runs: layer-streaming, if it fits."""
        return "layer-streaming" if isinstance(self.auto, Decision) else None


def compare(
    model: Candidate,
    tokens: int,
    machine: Machine,
    *,
    others: Callable[[], Sequence[Candidate]] = tuple,
    rates: Rates | None = None,
) -> Comparison:
    """Forecasts every strategy.

    Args:
        model: which.
        tokens: S, of the prompt.
        machine: what may be taken.
        others: gives models to name if nothing fits.
        rates: this machine's, if it is the one to run on.
    """

    def duration(strategy: Strategy) -> Duration | None:
        return forecast_duration(model.shape, tokens, strategy, rates) if rates else None

    auto = decide(
        model.shape,
        model.recurrent,
        tokens,
        machine,
        seconds=ranking(model.shape, tokens, machine, rates),
        others=others,
    )
    rows: dict[StrategyName, StrategyRow] = {}
    for name in STRATEGY_NAMES:
        if name == "layer-streaming":
            longest = longest_context_tokens(model.shape, model.recurrent, machine)
            rows[name] = StrategyRow(
                forecast=auto.forecast,
                duration=duration(auto.forecast.strategy),
                longest_context_tokens=longest,
                fits=isinstance(auto, Decision),
            )
            continue
        strategy = Strategy.named(name, device_type=machine.device_type)
        forecast = forecast_memory(model.shape, model.recurrent, tokens, strategy)
        rows[name] = StrategyRow(
            forecast=forecast,
            duration=duration(strategy),
            longest_context_tokens=longest_context_tokens(
                model.shape, model.recurrent, machine, strategy
            ),
            fits=machine.has_room_for(forecast),
        )
    return Comparison(rows=rows, auto=auto)
