"""The closed form against the simulation, and what it says of the method."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from transformers import AutoConfig, PretrainedConfig

from benchmarks.paper.simulate import simulate
from mom_core.forecast.peak_bytes import forecast_memory
from mom_core.forecast.recurrent import RecurrentBytes, recurrent_bytes
from mom_core.forecast.shape import ModelShape
from mom_core.model.catalogue import catalogue
from mom_core.strategy import STRATEGY_NAMES, Strategy

# Four layers of a model show all that a layer takes, and its KV and weights count for more than
# they do in all layers; full depth is compared once below.
LAYERS = 4
MODELS = ["llama-3-8b", "qwen3.5-9b", "qwen2.5-7b-1m", "mistral-nemo"]
LENGTHS = [1_000, 6_000, 16_000, 40_000]
# KV, hidden states, how an answer attends, weights (or the home of streamed ones).
PLACES: list[tuple[Any, Any, Any, Any]] = [
    ("host", "host", "host", "device"),
    ("device", "device", "device", "device"),
    ("host", "device", "device", "device"),
    ("device", "host", "device", "host"),
    ("host", "host", "stream", "host"),
    ("disk", "disk", "host", "disk"),
    ("disk", "host", "device", "device"),
]


def config_of(name: str, layers: int | None = LAYERS) -> PretrainedConfig:
    settings = dict(catalogue()[name].config)
    if layers is not None:
        settings["num_hidden_layers"] = layers
        if "layer_types" in settings:
            settings["layer_types"] = settings["layer_types"][:layers]
    return AutoConfig.for_model(**settings)


@functools.cache
def shape_of(name: str, layers: int | None) -> tuple[ModelShape, RecurrentBytes | None]:
    config = config_of(name, layers)
    return ModelShape.of_config(config, name), recurrent_bytes(config)


def compare(name: str, tokens: int, strategy: Strategy, layers: int | None = LAYERS) -> None:
    shape, recurrent = shape_of(name, layers)
    run = simulate(config_of(name, layers), tokens, strategy)
    forecast = forecast_memory(shape, recurrent, tokens, strategy)
    for phase, held in (("prefill", forecast.prefill), ("decode", forecast.decode)):
        for tier in ("device", "host", "disk"):
            simulated: Any = getattr(getattr(run, f"{tier}_peak")(phase), f"{tier}_bytes")
            planned = getattr(held, f"{tier}_bytes")
            what = f"{phase}, {tier}: {planned} planned at {held.moment}, {simulated} simulated"
            # A megabyte beside gigabytes is no error of the model's.
            assert planned == pytest.approx(simulated, rel=0.02, abs=1e6), what


def settings_of(name: Any, chunk_tokens: int = 4096) -> list[Strategy]:
    if name == "layer-streaming":
        return [
            Strategy.named(
                name,
                chunk_tokens=chunk_tokens,
                kv=kv,
                hidden=hidden,
                decode=decode,
                weights="device" if weights == "device" else "stream",
                weights_home="host" if weights == "device" else weights,
            )
            for kv, hidden, decode, weights in PLACES
        ]
    return [Strategy.named(name, chunk_tokens=chunk_tokens)]


@pytest.mark.parametrize("name", STRATEGY_NAMES)
@pytest.mark.parametrize("model", ["llama-3-8b", "qwen3.5-9b"])
def test_plan_and_simulation_agree(model: str, name: Any) -> None:
    for strategy in settings_of(name):
        compare(model, 9_000, strategy)


@pytest.mark.parametrize("chunk_tokens", [1000, 16_384])
def test_chunks_of_other_lengths(chunk_tokens: int) -> None:
    for strategy in settings_of("layer-streaming", chunk_tokens)[:2]:
        compare("llama-3-8b", 9_000, strategy)


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [155_000, 455_000])
@pytest.mark.parametrize("name", STRATEGY_NAMES)
def test_plan_and_simulation_agree_on_long_prompts(name: Any, tokens: int) -> None:
    for strategy in settings_of(name, 8192):
        compare("llama-3-8b", tokens, strategy)


@pytest.mark.slow
@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("name", STRATEGY_NAMES)
@pytest.mark.parametrize("model", MODELS)
def test_plan_and_simulation_agree_over_the_grid(model: str, name: Any, tokens: int) -> None:
    for strategy in settings_of(name):
        compare(model, tokens, strategy)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["qwen3-4b", "glm-4-9b-1m", "ministral-3-8b", "smollm2-135m"])
@pytest.mark.parametrize("device_type", ["cuda", "cpu"])
def test_other_shapes_and_the_cpu(model: str, device_type: Any) -> None:
    for name in STRATEGY_NAMES:
        compare(model, 9_000, Strategy.named(name, chunk_tokens=2048, device_type=device_type))


@pytest.mark.parametrize("name", ["standard", "mom"])
def test_plan_and_simulation_agree_in_full_depth(name: Any) -> None:
    compare("llama-3-8b", 155_000, Strategy.named(name), layers=None)


def test_the_papers_baseline_has_all_logits() -> None:
    compare("llama-3-8b", 9_000, Strategy.named("standard", logits="all"))


def test_a_token_costs_layer_streaming_one_layers_kv() -> None:
    shape, recurrent = shape_of("llama-3-8b", None)
    strategy = Strategy.named("layer-streaming")
    short, long = (
        forecast_memory(shape, recurrent, tokens, strategy).device_peak_bytes
        for tokens in (400_000, 500_000)
    )
    assert long - short == 100_000 * 4096


def test_streamed_weights_leave_two_layers_on_the_device() -> None:
    shape, recurrent = shape_of("llama-3-8b", None)
    held, streamed = (
        forecast_memory(shape, recurrent, 9_000, Strategy.named("layer-streaming", weights=where))
        for where in ("device", "stream")
    )
    layer = shape.layers_bytes[0]
    assert held.device_peak_bytes - streamed.device_peak_bytes == 30 * layer
    assert streamed.host_peak_bytes - held.host_peak_bytes == 32 * layer


def test_on_disk_is_not_on_the_host() -> None:
    shape, recurrent = shape_of("llama-3-8b", None)
    host, disk = (
        forecast_memory(shape, recurrent, 9_000, Strategy.named("layer-streaming", kv=kv))
        for kv in ("host", "disk")
    )
    assert disk.device_peak_bytes == host.device_peak_bytes
    assert disk.disk_bytes == host.prefill.host["KV"] == 32 * 4096 * (9_000 + 1024)
    assert disk.host_peak_bytes == host.host_peak_bytes - disk.disk_bytes
