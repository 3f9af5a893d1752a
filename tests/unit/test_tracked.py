"""The closed form against the bytes that a real run's tensors take on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.paper.simulate import simulate, track
from mom_core.forecast.peak_bytes import forecast_memory
from mom_core.forecast.shape import ModelShape
from mom_core.model.seam.decoder import HFSeam
from mom_core.strategy import STRATEGY_NAMES, Strategy


def small_model(layers: int = 3) -> LlamaForCausalLM:
    """Wide enough that a layer's buffers count beside a chunk's small ones."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=512,
        max_position_embeddings=1 << 20,
    )
    return LlamaForCausalLM(config).eval()


def tracked_and_planned(tokens: int, strategy: Strategy) -> tuple[Any, Any]:
    model = small_model()
    shape = ModelShape.of(HFSeam(model), "small")
    return track(model, tokens, strategy), forecast_memory(shape, None, tokens, strategy)


@pytest.mark.parametrize(
    ("name", "kv", "hidden", "weights"),
    [
        *((name, "device", "device", "device") for name in STRATEGY_NAMES),
        ("layer-streaming", "host", "host", "device"),
        ("layer-streaming", "disk", "disk", "device"),
        ("layer-streaming", "disk", "disk", "stream"),
    ],
)
def test_planned_peaks_are_what_a_real_run_holds(
    name: Any, kv: Any, hidden: Any, weights: Any
) -> None:
    strategy = Strategy.named(
        name, chunk_tokens=512, kv=kv, hidden=hidden, weights=weights, device_type="cpu"
    )
    real, planned = tracked_and_planned(3_000, strategy)
    for phase, held in (("prefill", planned.prefill), ("decode", planned.decode)):
        for tier in ("device", "host", "disk"):
            real_bytes = getattr(getattr(real, f"{tier}_peak")(phase), f"{tier}_bytes")
            planned_bytes = getattr(held, f"{tier}_bytes")
            # Twenty kilobytes of single numbers count for nothing in a model that is used.
            close = pytest.approx(real_bytes, rel=0.05, abs=20_000)
            assert planned_bytes == close, f"{phase}, {tier}, planned at {held.moment}"


@pytest.mark.parametrize("kv", ["device", "disk"])
@pytest.mark.parametrize("is_real", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_nothing_but_keys_values_hidden_states_and_ids_grows_with_the_prompt(
    kv: Any, is_real: bool
) -> None:
    strategy = Strategy.named(
        "layer-streaming", chunk_tokens=512, kv=kv, hidden=kv, device_type="cpu"
    )
    model = small_model(layers=2)
    shape = ModelShape.of(HFSeam(model), "small")
    extra = []
    for tokens in (20_000, 80_000):
        run = (
            track(model, tokens, strategy)
            if is_real
            else simulate(model.config, tokens, strategy, dtype=torch.float32)
        )
        # One copy of each, and room for an answer.
        counted = (
            shape.kv_bytes_per_token * (tokens + strategy.reserved_tokens)
            + tokens * shape.hidden * shape.dtype_bytes
            + tokens * 8
        )
        held = max(m.device_bytes + m.host_bytes + m.disk_bytes for m in run.timeline)
        extra.append(held - counted)
    assert extra[1] <= 1.01 * extra[0]
