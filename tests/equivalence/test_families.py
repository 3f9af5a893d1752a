"""The engine's logits and greedy tokens are plain transformers' own (design, section 4, rule 1)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mom_core import Engine, EngineConfig
from tests.equivalence.models import (
    FAMILIES,
    make_model,
    make_prompt,
    plain_greedy,
    plain_logits,
    relative_error,
)

TOLERANCE = 1e-4
CHUNK = 8
LENGTHS = [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5]
TIERS = ["device", "host"]


def check(model: Any, length: int, config: EngineConfig, new_tokens: int = 12) -> None:
    prompt = make_prompt(length)
    engine = Engine(model, config=config)
    assert relative_error(engine.logits(prompt), plain_logits(model, prompt)) < TOLERANCE
    assert engine.generate_ids(prompt, max_new_tokens=new_tokens) == plain_greedy(
        model, prompt, new_tokens
    )


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("family", FAMILIES)
def test_prompt_lengths(family: str, length: int) -> None:
    check(make_model(family), length, EngineConfig(chunk_tokens=CHUNK))


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("family", FAMILIES)
def test_kv_heads(family: str, kv_heads: int) -> None:
    check(make_model(family, kv_heads), 29, EngineConfig(chunk_tokens=CHUNK))


@pytest.mark.parametrize("chunk", [1, 3, "auto"])
@pytest.mark.parametrize("family", FAMILIES)
def test_chunk_sizes(family: str, chunk: Any) -> None:
    check(make_model(family), 29, EngineConfig(chunk_tokens=chunk))


@pytest.mark.parametrize("hidden", TIERS)
@pytest.mark.parametrize("kv", TIERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_tiers(family: str, kv: Any, hidden: Any) -> None:
    check(make_model(family), 29, EngineConfig(chunk_tokens=CHUNK, kv=kv, hidden=hidden))


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [*TIERS, "auto"])
@pytest.mark.parametrize("kv", [*TIERS, "auto"])
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("family", FAMILIES)
def test_everything_with_everything(family: str, kv_heads: int, kv: Any, hidden: Any) -> None:
    model = make_model(family, kv_heads)
    for chunk in (1, CHUNK, "auto"):
        for length in LENGTHS:
            check(model, length, EngineConfig(chunk_tokens=chunk, kv=kv, hidden=hidden), 6)


# A comparison proves something only where it can fail: with a feature removed, it must.


@pytest.mark.parametrize("family", ["mistral", "qwen2-window"])
def test_a_missing_window_is_caught(family: str) -> None:
    model, prompt = make_model(family), make_prompt(29)
    truth = plain_logits(model, prompt)
    # Some families ask their configuration, others their modules.
    model.config.sliding_window = None
    for layer in model.model.layers:
        layer.self_attn.sliding_window = None
    assert relative_error(Engine(model).logits(prompt), truth) > 10 * TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_a_wrong_scale_is_caught(family: str) -> None:
    model, prompt = make_model(family), make_prompt(29)
    truth = plain_logits(model, prompt)
    for layer in model.model.layers:
        layer.self_attn.scaling *= 1.1
    assert relative_error(Engine(model).logits(prompt), truth) > 10 * TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_missing_rope_is_caught(family: str) -> None:
    model, prompt = make_model(family), make_prompt(29)
    truth = plain_logits(model, prompt)
    model.model.rotary_emb.inv_freq.zero_()
    assert relative_error(Engine(model).logits(prompt), truth) > 10 * TOLERANCE


def test_the_model_is_untouched_between_calls() -> None:
    model = make_model("llama")
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    attention = model.config._attn_implementation
    weights = {name: p.clone() for name, p in model.named_parameters()}
    Engine(model).generate_ids(make_prompt(20), max_new_tokens=4)
    assert model.config._attn_implementation == attention
    for name, module in model.named_modules():
        assert vars(module).keys() == before[name].keys(), name
        assert "forward" not in vars(module), name
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, weights[name]), name
