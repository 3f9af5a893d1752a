"""Rates are measured once and kept; what runs took corrects later forecasts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mom_core import Engine
from mom_core.events import Finished
from mom_core.forecast.capacity import Machine
from mom_core.forecast.choose import Decision, EngineConfig, decide, ranking
from mom_core.forecast.peak_bytes import forecast_memory
from mom_core.forecast.seconds import corrected, forecast_duration, rates_for
from mom_core.hardware import known_rates, rates
from mom_core.strategy import Strategy
from tests.equivalence.models import shared_model

CPU = torch.device("cpu")

RATES = rates.Rates(
    linear_flops_per_second=1e11,
    attention_flops_per_second=1e11,
    one_row_bytes_per_second=1e10,
    host_row_bytes_per_second=1e9,
    elementwise_bytes_per_second=1e10,
    operation_seconds=0.0,
    layer_call_seconds=1.0,
    bus_bytes_per_second=1e9,
    disk_bytes_per_second=1e8,
)
QUICK = replace(RATES, layer_call_seconds=0.0)


@pytest.fixture(autouse=True)
def cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(known_rates, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(known_rates, "_is_busy", lambda: False)
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
    monkeypatch.setattr(known_rates, "measure_rates", lambda *_, **__: 1 / 0)
    assert rates_for(engine.shape, torch.float32, CPU) == first
    # Another dtype, another torch: measured again.
    with pytest.raises(ZeroDivisionError):
        rates_for(engine.shape, torch.bfloat16, CPU)
    monkeypatch.setattr(torch, "__version__", "99")
    with pytest.raises(ZeroDivisionError):
        rates_for(engine.shape, torch.float32, CPU)


def test_a_busy_machine_is_measured_again_when_it_is_free(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_rates, "_is_busy", lambda: True)
    slow = rates_for(engine.shape, torch.float32, CPU)
    assert rates_for(engine.shape, torch.float32, CPU) == slow
    monkeypatch.setattr(known_rates, "_is_busy", lambda: False)
    monkeypatch.setattr(
        known_rates, "measure_rates", lambda *_, **__: replace(slow, operation_seconds=1)
    )
    fresh = rates_for(engine.shape, torch.float32, CPU)
    assert fresh.operation_seconds == 1
    monkeypatch.setattr(known_rates, "measure_rates", lambda *_, **__: 1 / 0)
    assert rates_for(engine.shape, torch.float32, CPU) == fresh


def vars_of(found: rates.Rates) -> list[float]:
    return [getattr(found, name) for name in found.__slots__]


def test_a_broken_cache_is_made_again(engine: Engine, cache_folder: Path) -> None:
    (cache_folder / "rates.json").write_text("[1, 2")
    assert known_rates.correction("x", "prefill") == 1.0
    rates_for(engine.shape, torch.float32, CPU)
    assert '"rates"' in (cache_folder / "rates.json").read_text()


def test_what_a_run_took_corrects_the_next_forecast(engine: Engine) -> None:
    def forecast() -> float:
        return corrected(plain, engine.shape, CPU).prefill_seconds

    engine.last_forecast = engine.placement.forecast_run(engine.context, prompt_tokens=2000)
    strategy = engine.last_forecast.strategy
    known = rates_for(engine.shape, torch.float32, CPU)
    plain = forecast_duration(engine.shape, 2000, strategy, known)
    assert forecast() == plain.prefill_seconds
    real = 3 * plain.prefill_seconds
    engine.learn(finished(real))
    assert forecast() == pytest.approx(real)
    # A faster run counts half.
    engine.learn(finished(plain.prefill_seconds))
    assert forecast() == pytest.approx(3**0.5 * plain.prefill_seconds)
    # These say nothing: part of it was read before, or the machine slept.
    engine.learn(finished(50 * real, reused=1500))
    engine.learn(finished(1000 * real))
    assert forecast() == pytest.approx(3**0.5 * plain.prefill_seconds)


def test_longer_prompts_take_more_than_their_share(engine: Engine) -> None:
    strategy = Strategy.named("layer-streaming", kv="device", hidden="device", device_type="cpu")
    short, long = (
        forecast_duration(engine.shape, tokens, strategy, QUICK) for tokens in (1000, 10_000)
    )
    assert long.prefill_seconds > 10 * short.prefill_seconds
    read = 9000 * engine.shape.kv_bytes_per_token
    assert long.token_seconds - short.token_seconds == pytest.approx(read / 1e10)


def seconds(engine: Engine, tokens: int = 4096, **settings: Any) -> tuple[float, float]:
    strategy = Strategy.named("layer-streaming", **{"hidden": "device", **settings})
    found = forecast_duration(engine.shape, tokens, strategy, RATES)
    return found.prefill_seconds, found.token_seconds


def test_every_call_of_a_layer_takes_its_time(engine: Engine) -> None:
    (few, _), (many, _) = (
        seconds(engine, kv="device", chunk_tokens=chunk) for chunk in (4096, 1024)
    )
    assert many - few == pytest.approx(3 * len(engine.shape.layers))


def test_copies_run_beside_the_computation_of_a_gpu_and_not_of_a_cpu(engine: Engine) -> None:
    near, host = (seconds(engine, kv=kv)[0] for kv in ("device", "host"))
    assert host == near
    near, host = (seconds(engine, kv=kv, device_type="cpu")[0] for kv in ("device", "host"))
    kv_bytes = 4096 * engine.shape.kv_bytes_per_token
    assert host - near == pytest.approx(kv_bytes / 1e9)
    disk = seconds(engine, kv="disk", device_type="cpu")[0]
    assert disk - host == pytest.approx(kv_bytes / 1e8)


def test_an_answer_takes_what_its_keys_and_values_take_to_reach(engine: Engine) -> None:
    kv_bytes = 4096 * engine.shape.kv_bytes_per_token
    (read_here, here), (read_back, back), (_, host), (_, stream) = (
        seconds(engine, kv=kv, decode=decode)
        for kv, decode in (
            ("device", "device"),
            ("host", "device"),
            ("host", "host"),
            ("host", "stream"),
        )
    )
    assert here == back
    assert read_back - read_here == pytest.approx(kv_bytes / 1e9)
    # By the CPU, instead of by the device.
    assert host - here == pytest.approx(kv_bytes / 1e9 - kv_bytes / 1e10)
    assert here < stream < host
    on_disk = seconds(engine, kv="disk", decode="host")[1]
    assert on_disk - host == pytest.approx(kv_bytes / 1e8)


def test_streamed_weights_cross_the_bus_for_every_token(engine: Engine) -> None:
    layers_bytes = sum(engine.shape.layers_bytes)
    streamed = seconds(engine, 10, kv="device", weights="stream")[1]
    small = len(engine.shape.layers) * 90 * RATES.operation_seconds
    assert streamed - small == pytest.approx(layers_bytes / 1e9)


def test_on_a_gpu_the_quickest_way_that_fits_is_taken(engine: Engine) -> None:
    # All keys and values do not fit; two layers' do, and the bus is quick or slow.
    one_layer = forecast_memory(
        engine.shape, None, 40_000, Strategy.named("layer-streaming", chunk_tokens=4096)
    ).device_peak_bytes
    spare = 2 * 41_024 * engine.shape.layer_kv_bytes_per_token
    on = Machine(
        device_bytes=int((one_layer + spare) / 0.95), host_bytes=1 << 30, disk_bytes=1 << 30
    )
    for bus, expected in ((1e12, "stream"), (1e6, "host")):
        known = replace(QUICK, bus_bytes_per_second=bus)
        found = decide(
            engine.shape,
            None,
            40_000,
            on,
            config=EngineConfig(kv="host", weights="device", hidden="host"),
            seconds=ranking(engine.shape, 40_000, on, known),
        )
        assert isinstance(found, Decision)
        assert found.strategy.decode == expected
