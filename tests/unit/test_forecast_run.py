"""The outlook on a run: the engine's own settings, figures that add up."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from mom_core import Engine, EngineConfig
from mom_core.forecast import choose
from mom_core.forecast.capacity import Room
from mom_core.hardware import known_rates
from mom_core.hardware.rates import Rates
from tests.equivalence.models import shared_model

RATES = Rates(
    linear_flops_per_second=1e11,
    attention_flops_per_second=1e11,
    one_row_bytes_per_second=1e10,
    host_row_bytes_per_second=1e10,
    elementwise_bytes_per_second=1e10,
    operation_seconds=1e-6,
    layer_call_seconds=1e-4,
    bus_bytes_per_second=1e10,
    disk_bytes_per_second=1e9,
)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    monkeypatch.setattr(known_rates, "cache_folder", lambda: tmp_path)
    engine = Engine(shared_model("llama"))
    engine.placement.__dict__["rates"] = RATES
    return engine


def on(engine: Engine, monkeypatch: pytest.MonkeyPatch, device: int | None, host: int) -> None:
    monkeypatch.setattr(
        engine.placement, "room", lambda config, store: Room(device_bytes=device, host_bytes=host)
    )


def test_the_outlook_tells_what_the_engine_does(engine: Engine) -> None:
    seen = engine.forecast_run(3_000)
    assert seen.fits
    assert seen.strategy == engine.placement.accept(engine.forecast_run(3_000))
    assert seen.device_peak_bytes is None
    assert seen.device_total_bytes is None
    assert sum(seen.by_kind["host"].values()) == seen.host_peak_bytes
    assert seen.by_kind["host"]["weights"] == engine.held_bytes.of_kind("weights")
    assert seen.sentence.startswith(f"3,000 tokens of {engine.name} fit: ")
    assert seen.reason.startswith("everything fits in this machine's memory; chunks of ")
    assert seen.standard_fits
    assert seen.standard_peak_bytes > seen.host_peak_bytes


def test_what_was_read_is_not_timed_again(engine: Engine) -> None:
    def read_seconds(**reused: int) -> float:
        seconds = engine.forecast_run(8_000, **reused).read_seconds
        assert seconds is not None
        return seconds

    whole, rest, nothing = (read_seconds(reused_tokens=n) for n in (0, 6_000, 8_000))
    assert 0 == nothing < rest < whole
    # The last tokens see more keys than the first.
    assert rest > whole / 4
    token_seconds = engine.forecast_run(8_000).token_seconds
    assert token_seconds is not None
    assert token_seconds > (engine.forecast_run(100).token_seconds or 0)


def test_other_settings_can_be_looked_at(engine: Engine) -> None:
    config = EngineConfig(kv="disk", hidden="host", chunk_tokens=99)
    seen = engine.forecast_run(3_000, config=config)
    assert (seen.strategy.kv, seen.strategy.hidden, seen.strategy.chunk_tokens) == (
        "disk",
        "host",
        99,
    )
    assert seen.disk_peak_bytes == seen.by_kind["disk"]["KV"]
    assert engine.config == EngineConfig()


def test_a_gpu_has_a_memory_of_its_own(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    on(engine, monkeypatch, 1 << 30, 1 << 30)
    seen = engine.forecast_run(3_000)
    assert seen.device_total_bytes == (1 << 30) + engine.held_bytes.of_kind("weights")
    assert seen.device_peak_bytes == sum(seen.by_kind["device"].values())
    assert "on the device" in seen.sentence
    assert "in memory" in seen.sentence
    longer = engine.forecast_run(100_000)
    assert longer.device_peak_bytes is not None
    assert longer.standard_peak_bytes > longer.device_peak_bytes


def test_what_does_not_fit_is_told_with_what_does(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(engine, monkeypatch, 1 << 20, 1 << 20)
    seen = engine.forecast_run(100_000)
    assert not seen.fits
    assert not seen.standard_fits
    assert seen.sentence.startswith(f"100,000 tokens of {engine.name} do not fit")
    assert "What fits: a document of at most " in seen.sentence
    assert seen.reason == ""
    assert seen.device_peak_bytes is not None
    assert seen.device_total_bytes is not None
    assert seen.device_peak_bytes > seen.device_total_bytes


def test_a_long_answer_is_counted(engine: Engine) -> None:
    short, long = (engine.forecast_run(3_000, new_tokens=n) for n in (512, 50_000))
    assert long.host_peak_bytes > short.host_peak_bytes
    assert long.prompt_tokens == 3_000
    assert long.read_seconds == short.read_seconds


@pytest.mark.parametrize("device", [None, 1 << 20])
def test_the_work_of_a_forecast_does_not_grow_with_the_prompt(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, device: int | None
) -> None:
    """A page asks at every tick of a checkbox."""
    on(engine, monkeypatch, device, 1 << 20)
    counted = mock.Mock(wraps=choose.forecast_memory)
    monkeypatch.setattr(choose, "forecast_memory", counted)

    def considered(tokens: int) -> int:
        counted.reset_mock()
        assert engine.forecast_run(tokens).prompt_tokens == tokens
        return counted.call_count

    # Settings that are tried, and steps of the search for what fits: a logarithm of the length.
    assert considered(1_000_000) < 2 * considered(10_000)
    assert considered(1_000_000) < 500
