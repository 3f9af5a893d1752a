"""Auto: what is chosen for which machine, and what a refusal says."""

from __future__ import annotations

import functools

import pytest
from transformers import AutoConfig

from mom_core import Engine, EngineConfig, OutOfMemory
from mom_core.forecast.capacity import DEVICE_SHARE, Machine, Room
from mom_core.forecast.choose import (
    Candidate,
    Decision,
    Refusal,
    decide,
    longest_context_tokens,
)
from mom_core.forecast.compare import compare
from mom_core.forecast.peak_bytes import forecast_memory
from mom_core.forecast.recurrent import recurrent_bytes
from mom_core.forecast.shape import ModelShape
from mom_core.model.catalogue import catalogue
from mom_core.strategy import Strategy
from tests.equivalence.models import make_model, make_prompt, plain_logits, relative_error

GIB = 2**30


@functools.cache
def model(name: str = "llama-3-8b") -> Candidate:
    config = AutoConfig.for_model(**catalogue()[name].config)
    return Candidate(ModelShape.of_config(config, name), recurrent_bytes(config))


def machine(device: float | None, host: float = 64, disk: float = 200) -> Machine:
    return Machine(
        device_bytes=None if device is None else int(device * GIB),
        host_bytes=int(host * GIB),
        disk_bytes=int(disk * GIB),
    )


def decided(tokens: int, on: Machine, asked: EngineConfig | None = None) -> Decision:
    found = decide(model().shape, model().recurrent, tokens, on, config=asked)
    assert isinstance(found, Decision), found.sentence
    assert on.has_room_for(found.forecast)
    return found


@pytest.mark.parametrize(
    ("tokens", "on", "kv", "hidden", "weights", "decode"),
    [
        (8_000, machine(80), "device", "device", "device", "device"),
        (455_000, machine(24, host=128), "host", "host", "device", "host"),
        (455_000, machine(24, host=32), "disk", "host", "device", "host"),
        (8_000, machine(12), "device", "device", "stream", "device"),
        (8_000, machine(None), "device", "device", "device", "device"),
        (455_000, machine(None, host=32), "disk", "disk", "device", "host"),
    ],
)
def test_places(tokens: int, on: Machine, kv: str, hidden: str, weights: str, decode: str) -> None:
    found = decided(tokens, on)
    strategy = found.strategy
    assert (strategy.kv, strategy.hidden, strategy.weights, strategy.decode) == (
        kv,
        hidden,
        weights,
        decode,
    )


def test_what_is_asked_for_stays() -> None:
    asked = EngineConfig(chunk_tokens=333, kv="host", hidden="disk", weights="stream")
    strategy = decided(8_000, machine(80), asked).strategy
    assert (strategy.chunk_tokens, strategy.kv, strategy.hidden, strategy.weights) == (
        333,
        "host",
        "disk",
        "stream",
    )


def test_keys_and_values_come_back_for_the_answer_where_they_fit() -> None:
    asked = EngineConfig(kv="host")
    assert decided(8_000, machine(80), asked).strategy.decode == "device"
    assert decided(455_000, machine(24, host=128), asked).strategy.decode == "host"


def test_the_reason_is_one_line() -> None:
    reason = decided(455_000, machine(24, host=128)).reason
    assert reason == (
        "keys and values of one layer fit on the device, those of all in host memory; for the "
        "answer the CPU attends to them where they lie; chunks of 4,096 tokens"
    )


def test_a_refusal_has_the_arithmetic_and_what_fits() -> None:
    on = machine(24, host=20, disk=5)
    found = decide(model().shape, None, 400_000, on, others=lambda: [model(), model("qwen3.5-9b")])
    assert isinstance(found, Refusal)
    assert found.sentence.startswith("400,000 tokens of llama-3-8b do not fit: even with the ")
    assert (
        "49.0 GiB in host memory (KV 49.0 GiB, token ids 3.1 MiB), of 20.0 GiB there."
        in found.sentence
    )
    longest = longest_context_tokens(model().shape, None, on)
    assert f"What fits: a document of at most {longest:,} tokens or the model" in found.sentence
    assert "qwen3.5-9b (32 KiB of keys and values a token instead of 128)." in found.sentence
    # It is the longest.
    assert isinstance(decide(model().shape, None, longest, on), Decision)
    assert isinstance(decide(model().shape, None, longest + 1, on), Refusal)


def test_nothing_fits_a_machine_too_small() -> None:
    found = decide(model().shape, None, 1_000, machine(None, host=4))
    assert isinstance(found, Refusal)
    assert found.sentence.endswith("Choose a smaller model.")


def test_at_80_gib_host_and_disk_bound_the_context_and_not_the_device() -> None:
    def longest(**room: float) -> int:
        return longest_context_tokens(model().shape, None, machine(80, **room))

    base = longest(host=64, disk=0)
    # With all KV on the device at first, then in host memory.
    assert longest(host=128, disk=0) > 1.4 * base
    assert longest(host=64, disk=400) > 3 * base


def test_strategies_side_by_side() -> None:
    found = compare(model(), 455_000, machine(24, host=128))
    assert found.chosen == "layer-streaming"
    rows = found.rows
    assert rows["layer-streaming"].fits
    assert rows["layer-streaming"].forecast.device_peak_bytes <= 19 * GIB
    assert [name for name, row in rows.items() if row.fits] == ["layer-streaming"]
    for name, row in rows.items():
        assert row.fits == (row.longest_context_tokens >= 455_000), name


def test_the_engine_does_what_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(make_model("llama"))
    needed = forecast_memory(
        engine.shape, None, 400, Strategy.named("layer-streaming", chunk_tokens=256)
    ).device_peak_bytes
    # Beside the weights, with the margin, and a little more.
    tight = int(needed / DEVICE_SHARE) + 1000 - engine.held_bytes.of_kind("weights")

    def settings(device: int | None, host: int = GIB) -> tuple[str, str, int]:
        monkeypatch.setattr(
            engine.placement,
            "room",
            lambda config, store: Room(device_bytes=device, host_bytes=host),
        )
        strategy = engine.placement.accept(
            engine.placement.forecast_run(engine.context, prompt_tokens=400)
        )
        return strategy.kv, strategy.hidden, strategy.chunk_tokens

    assert settings(None) == ("device", "device", 2048)
    assert settings(None, host=1000)[:2] == ("disk", "disk")
    assert settings(2**30) == ("device", "device", 4096)
    # Less than the keys and values of all layers, more than those of one.
    assert settings(tight) == ("host", "host", 256)
    assert settings(tight, host=50_000)[:2] == ("disk", "disk")
    with pytest.raises(OutOfMemory, match=r"400 tokens of .* do not fit"):
        settings(tight // 2)
    engine.configure(EngineConfig(chunk_tokens=7, kv="host", hidden="disk"))
    assert settings(2**30) == ("host", "disk", 7)


def test_weights_are_streamed_exactly_where_the_plan_says(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, prompt = Engine(make_model("llama")), make_prompt(400)
    truth = plain_logits(engine.model, prompt)
    held = forecast_memory(
        engine.shape, None, 400, Strategy.named("layer-streaming", chunk_tokens=256)
    ).device_peak_bytes
    threshold = int(held / DEVICE_SHARE)
    seen = []
    # What the GPU has in all, weights included.
    for total in (threshold + 2000, threshold - 2000, 2**30, threshold - 2000):
        monkeypatch.setattr(
            engine.placement,
            "room",
            lambda config, store, total=total: Room(
                device_bytes=total - engine.held_bytes["device", "weights"], host_bytes=GIB
            ),
        )
        on = Machine(device_bytes=total, host_bytes=GIB, disk_bytes=GIB)
        planned = decide(engine.shape, None, 400, on)
        assert isinstance(planned, Decision)
        engine.context.crop(0)
        assert relative_error(engine.logits(prompt), truth) < 1e-4
        assert engine.last_forecast is not None
        assert engine.last_forecast.fits
        assert engine.last_forecast.strategy == planned.strategy
        assert engine.last_forecast.reason == planned.reason
        is_streamed = engine.held_bytes["host", "weights"] > 0
        assert is_streamed == (planned.strategy.weights == "stream")
        seen.append(is_streamed)
    assert seen == [False, True, False, True]
    engine.close()
