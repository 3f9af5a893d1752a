"""Rates are measured once and kept; what runs took corrects later forecasts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from app import timing
from mom_core import Engine
from mom_core.events import Finished
from mom_core.memory import rates
from mom_core.memory.duration import corrected, forecast_duration, rates_for
from mom_core.memory.strategy import Strategy
from tests.equivalence.models import shared_model

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(rates, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(rates, "_is_busy", lambda: False)
    return tmp_path


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(shared_model("llama"))


def finished(seconds: float, *, steps: int = 20, reused: int = 0) -> Finished:
    return Finished(
        reason="length",
        prompt_tokens=2000,
        reused_tokens=reused,
        new_tokens=21,
        decode_steps=steps,
        prefill_seconds=seconds,
        decode_seconds=seconds,
    )


def test_rates_are_measured_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    first = rates_for(engine.shape, torch.float32, CPU)
    assert min(vars_of(first)) > 0
    monkeypatch.setattr(rates, "measure_rates", lambda *_, **__: 1 / 0)
    assert rates_for(engine.shape, torch.float32, CPU) == first
    # Another dtype, another torch: measured anew.
    with pytest.raises(ZeroDivisionError):
        rates_for(engine.shape, torch.bfloat16, CPU)
    monkeypatch.setattr(torch, "__version__", "99")
    with pytest.raises(ZeroDivisionError):
        rates_for(engine.shape, torch.float32, CPU)


def test_a_busy_machine_is_measured_again_when_it_is_free(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "_is_busy", lambda: True)
    slow = rates_for(engine.shape, torch.float32, CPU)
    assert rates_for(engine.shape, torch.float32, CPU) == slow
    monkeypatch.setattr(rates, "_is_busy", lambda: False)
    monkeypatch.setattr(rates, "measure_rates", lambda *_, **__: replace(slow, operation_seconds=1))
    fresh = rates_for(engine.shape, torch.float32, CPU)
    assert fresh.operation_seconds == 1
    monkeypatch.setattr(rates, "measure_rates", lambda *_, **__: 1 / 0)
    assert rates_for(engine.shape, torch.float32, CPU) == fresh


def vars_of(found: rates.Rates) -> list[float]:
    return [getattr(found, name) for name in found.__slots__]


def test_a_broken_cache_is_made_anew(engine: Engine, cache_folder: Path) -> None:
    (cache_folder / "rates.json").write_text("[1, 2")
    assert rates.correction("x", "prefill") == 1.0
    rates_for(engine.shape, torch.float32, CPU)
    assert '"rates"' in (cache_folder / "rates.json").read_text()


def test_what_a_run_took_corrects_the_next_forecast(engine: Engine) -> None:
    def forecast() -> float:
        return corrected(plain, engine.shape, CPU).prefill_seconds

    strategy = Strategy.named("layer-streaming", device_type="cpu")
    known = rates_for(engine.shape, torch.float32, CPU)
    plain = forecast_duration(engine.shape, 2000, strategy, known)
    assert forecast() == plain.prefill_seconds
    real = 3 * plain.prefill_seconds
    timing.learn(engine, finished(real))
    assert forecast() == pytest.approx(real)
    # A faster run counts half.
    timing.learn(engine, finished(plain.prefill_seconds))
    assert forecast() == pytest.approx(3**0.5 * plain.prefill_seconds)
    # These say nothing: part of it was read before, or the machine slept.
    timing.learn(engine, finished(50 * real, reused=1500))
    timing.learn(engine, finished(1000 * real))
    assert forecast() == pytest.approx(3**0.5 * plain.prefill_seconds)


def test_longer_prompts_take_more_than_their_share(engine: Engine) -> None:
    strategy = Strategy.named("layer-streaming", device_type="cpu")
    known = rates.Rates(
        linear_flops_per_second=1e11,
        attention_flops_per_second=1e11,
        one_row_bytes_per_second=1e10,
        elementwise_bytes_per_second=1e10,
        operation_seconds=0.0,
    )
    short, long = (
        forecast_duration(engine.shape, tokens, strategy, known) for tokens in (1000, 10_000)
    )
    assert long.prefill_seconds > 10 * short.prefill_seconds
    read = 9000 * engine.shape.kv_bytes_per_token
    assert long.token_seconds - short.token_seconds == pytest.approx(read / 1e10)
