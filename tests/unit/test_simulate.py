"""Simulation against tracked real runs, and against what is known of the method."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from benchmarks.paper.simulate import Simulation, simulate, track
from mom_core.forecast.tracker import Moment
from mom_core.strategy import STRATEGY_NAMES, Strategy
from tests.equivalence.models import make_model

# Covered: grouped heads; a recurrent state; windows, soft-caps (dense scores), sinks and experts, a
# convolution state.
TRACKED = [
    "llama",
    "qwen3.5",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("mistral", "gemma2", "gpt-oss", "lfm2")
    ),
]


def peaks(run: Simulation) -> dict[str, int]:
    return {
        f"{tier} {phase}": getattr(getattr(run, f"{tier}_peak")(phase), f"{tier}_bytes")
        for tier in ("device", "host")
        for phase in ("prefill", "decode")
    }


@pytest.mark.parametrize("name", STRATEGY_NAMES)
@pytest.mark.parametrize("family", TRACKED)
def test_simulation_equals_a_tracked_real_run(family: str, name: Any) -> None:
    strategy = Strategy.named(name, chunk_tokens=64, device_type="cpu")
    # Experts' grouped products know fake tensors in bf16 only.
    dtype = torch.bfloat16 if family == "gpt-oss" else torch.float32
    model = make_model(family).to(dtype)
    real = peaks(track(model, 200, strategy))
    simulated = peaks(simulate(model.config, 200, strategy, dtype=dtype))
    for what, real_bytes in real.items():
        assert simulated[what] == pytest.approx(real_bytes, rel=0.01), what


def test_where_hidden_states_lie_is_seen() -> None:
    model = make_model("llama")
    host, device = (
        Strategy.named("layer-streaming", chunk_tokens=64, hidden=hidden, device_type="cpu")
        for hidden in ("host", "device")
    )
    one, other = track(model, 200, host), track(model, 200, device)
    moved = 200 * model.config.hidden_size * 4
    assert one.host_peak().host["hidden"] == moved
    assert other.device_peak().device["hidden"] == moved
    assert "hidden" not in other.host_peak().host
    weights = sum(p.numel() * 4 for p in model.parameters())
    assert one.device_peak().device["weights"] >= weights


def llama_8b(layers: int = 32) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        max_position_embeddings=1 << 20,
    )


@functools.cache
def device_peak(name: Any, tokens: int, layers: int, **settings: Any) -> Moment:
    run = simulate(llama_8b(layers), tokens, Strategy.named(name, **settings))
    return run.device_peak("prefill")


@pytest.mark.parametrize(
    ("name", "gib"), [("standard", 51.1), ("mini-sequence", 42.2), ("mom", 23.9)]
)
def test_reference_points_of_llama_3_8b(name: str, gib: float) -> None:
    peak = device_peak(name, 155_000, 32)
    assert peak.device_bytes / 2**30 == pytest.approx(gib, rel=0.003)
    assert peak.device["weights"] / 2**30 == pytest.approx(14.96, abs=0.005)


def test_layer_streaming_takes_one_layers_kv_per_further_token() -> None:
    short = device_peak("layer-streaming", 40_000, 3, chunk_tokens=8192)
    long = device_peak("layer-streaming", 160_000, 3, chunk_tokens=8192)
    one_layer_of_kv = 2 * 8 * 128 * 2
    assert long.device_bytes - short.device_bytes <= 120_000 * one_layer_of_kv
    assert long.device["KV"] == 160_000 * one_layer_of_kv


def test_layers_add_weights_to_layer_streaming_and_nothing_else() -> None:
    """So that two layers tell what all of them take."""
    few, more = (
        device_peak("layer-streaming", 40_000, layers, chunk_tokens=8192) for layers in (3, 6)
    )
    assert {k: v for k, v in few.device.items() if k != "weights"} == {
        k: v for k, v in more.device.items() if k != "weights"
    }


def test_all_logits_are_the_papers_baseline() -> None:
    last = device_peak("standard", 8_000, 2)
    every = device_peak("standard", 8_000, 2, logits="all")
    assert every.device["logits"] >= 8_000 * 128256 * 2
    assert every.device_bytes > last.device_bytes
