"""What a run will take, known before it begins: whether it fits, what lies where, how long.

A page asks at every tick of a checkbox, so nothing here measures, allocates or runs anything.

Source: ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from mom_core.config import EngineConfig, TierName
from mom_core.forecast.capacity import Machine
from mom_core.forecast.choose import Decision, decide, ranking
from mom_core.forecast.peak_bytes import forecast_memory
from mom_core.forecast.recurrent import RecurrentBytes
from mom_core.forecast.seconds import corrected, forecast_duration
from mom_core.forecast.shape import ModelShape
from mom_core.hardware.rates import Rates
from mom_core.sizes import size_text
from mom_core.strategy import Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class RunForecast:
    """The forecast of a run with the settings that "auto" chooses for it.

    Peaks cover reading and answering, and all that the engine holds: weights, and what was read
    before, included. Totals are what it may hold in all, what it holds already included: free
    memory, or the cap that a person gave. Whether the prompt is longer than the model's window is
    not asked here.

    Args:
        fits: whether memory and disk have room for it, with a margin.
        sentence: what is needed of what there is; if it does not fit, what does.
        reason: why these settings, in one line; empty if nothing fits.
        strategy: the settings; if nothing fits, those that come nearest.
        prompt_tokens: S.
        reused_tokens: tokens of the prompt that need not be read.
        read_seconds: to read the rest; None where the machine's rates are not known.
        token_seconds: for each token of the answer; the same.
        device_peak_bytes: on the GPU; None without one.
        device_total_bytes: that may be taken there; the same.
        host_peak_bytes: CPU memory; without a GPU everything but the disk.
        host_total_bytes: that may be taken there.
        disk_peak_bytes: in files.
        by_kind: bytes of each kind by tier, at the tier's peak; no tier "device" without a GPU.
        standard_peak_bytes: what plain transformers would take where the model computes.
        standard_fits: whether it could.
    """

    fits: bool
    sentence: str
    reason: str
    strategy: Strategy
    prompt_tokens: int
    reused_tokens: int
    read_seconds: float | None
    token_seconds: float | None
    device_peak_bytes: int | None
    device_total_bytes: int | None
    host_peak_bytes: int
    host_total_bytes: int
    disk_peak_bytes: int
    by_kind: Mapping[TierName, Mapping[str, int]]
    standard_peak_bytes: int
    standard_fits: bool


def forecast_run(
    shape: ModelShape,
    recurrent: RecurrentBytes | None,
    machine: Machine,
    *,
    prompt_tokens: int,
    reused_tokens: int = 0,
    new_tokens: int = 512,
    config: EngineConfig | None = None,
    kv_tiers: Sequence[TierName] | None = None,
    rates: Rates | None = None,
    device: torch.device | None = None,
) -> RunForecast:
    """Forecasts a run.

    Args:
        shape: the model's numbers.
        recurrent: what a recurrent layer holds; None if the model has none.
        machine: what may be taken, what the engine holds already included.
        prompt_tokens: S.
        reused_tokens: tokens of the prompt that need not be read.
        new_tokens: the most tokens of the answer.
        config: the settings; each "auto" among them is decided.
        kv_tiers: see `decide`.
        rates: the machine's; None if they are not known.
        device: where the model computes, for what its earlier runs took; the CPU if None.
    """
    prompt_tokens = max(1, prompt_tokens)
    reused_tokens = min(max(0, reused_tokens), prompt_tokens)
    tokens = prompt_tokens + max(0, new_tokens - Strategy.named("layer-streaming").reserved_tokens)
    found = decide(
        shape,
        recurrent,
        tokens,
        machine,
        config=config,
        kv_tiers=kv_tiers,
        seconds=ranking(shape, tokens, machine, rates),
    )
    forecast = found.forecast
    standard = forecast_memory(
        shape, recurrent, tokens, Strategy.named("standard", device_type=machine.device_type)
    )
    duration = None
    if rates is not None:
        duration = corrected(
            forecast_duration(
                shape, prompt_tokens, forecast.strategy, rates, reused_tokens=reused_tokens
            ),
            shape,
            device,
        )
    is_one_memory = machine.device_bytes is None
    by_kind = forecast.by_tier(is_one_memory=is_one_memory)
    peaks = {tier: sum(kinds.values()) for tier, kinds in by_kind.items()}
    is_decided = isinstance(found, Decision)
    return RunForecast(
        fits=is_decided,
        sentence=(
            _sentence(prompt_tokens, shape.name, peaks, machine)
            if isinstance(found, Decision)
            else found.sentence
        ),
        reason=found.reason if isinstance(found, Decision) else "",
        strategy=forecast.strategy,
        prompt_tokens=prompt_tokens,
        reused_tokens=reused_tokens,
        read_seconds=None if duration is None else duration.prefill_seconds,
        token_seconds=None if duration is None else duration.token_seconds,
        device_peak_bytes=peaks.get("device"),
        device_total_bytes=machine.device_bytes,
        host_peak_bytes=peaks["host"],
        host_total_bytes=machine.host_bytes,
        disk_peak_bytes=peaks["disk"],
        by_kind=by_kind,
        standard_peak_bytes=(
            standard.one_memory_peak_bytes if is_one_memory else standard.device_peak_bytes
        ),
        standard_fits=machine.has_room_for(standard),
    )


def _sentence(tokens: int, name: str, peaks: Mapping[TierName, int], machine: Machine) -> str:
    totals = {
        "device": ("on the device", machine.device_bytes or 0),
        "host": ("in memory", machine.host_bytes),
        "disk": ("on the disk", machine.disk_bytes),
    }
    parts = [
        f"{size_text(peaks[tier])} of {size_text(totals[tier][1])} {totals[tier][0]}"
        for tier in peaks
        if peaks[tier] or tier == "device"
    ]
    return f"{tokens:,} tokens of {name} fit: {', '.join(parts)}."
