"""Layers of the plain shape are recognised by what they compute, and only those."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from mom_core import Engine
from mom_core.native import kernels
from tests.equivalence.models import CORE, make_model, make_prompt, plain_greedy, plain_logits

PROMPT = make_prompt(40)


@pytest.fixture(autouse=True)
def needs_a_compiler() -> None:
    if kernels() is None:
        pytest.skip("there is no C compiler here")


def recognised(engine: Engine) -> list[bool]:
    return [row is not None for row in engine.seam.plain_layers()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", CORE)
def test_plain_families_are_recognised(family: str, dtype: torch.dtype) -> None:
    assert all(recognised(Engine(make_model(family).to(dtype))))


@pytest.mark.parametrize("family", CORE)
def test_steps_equal_plain_transformers(family: str) -> None:
    model = make_model(family)
    engine = Engine(model)
    assert engine.generate_ids(PROMPT, max_new_tokens=12) == plain_greedy(model, PROMPT, 12)


def test_bf16_steps_are_as_near_the_truth_as_torch() -> None:
    truth_model = make_model("qwen3").bfloat16().float()
    model = make_model("qwen3").bfloat16()
    engine = Engine(model)
    ours_error = torch.zeros(())
    plain_error = torch.zeros(())
    answer = engine.generate_ids(PROMPT, max_new_tokens=30)
    for length in range(1, 30, 4):
        ids = PROMPT + answer[:length]
        truth = plain_logits(truth_model, ids)
        engine.logits(ids[:-1])
        ours_error += (engine.logits(ids) - truth).square().mean()
        plain_error += (plain_logits(model, ids).float() - truth).square().mean()
    assert ours_error <= 1.5 * plain_error


def _scaled_by(module: Any, factor: float) -> Callable[..., Any]:
    original = type(module).forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        return original(module, *args, **kwargs) * factor

    return forward


def test_a_hook_is_seen_and_called() -> None:
    model = make_model("llama")
    engine = Engine(model)
    assert all(recognised(engine))
    calls: list[int] = []
    handle = model.model.layers[1].mlp.up_proj.register_forward_hook(lambda *_: calls.append(1))
    assert recognised(engine) == [True, False, True]
    engine.generate_ids(PROMPT, max_new_tokens=5)
    assert len(calls) >= 5
    handle.remove()
    assert all(recognised(engine))


def test_a_replaced_forward_is_respected() -> None:
    model = make_model("llama")
    engine = Engine(model)
    before = engine.generate_ids(PROMPT, max_new_tokens=12)
    mlp = model.model.layers[0].mlp
    mlp.forward = _scaled_by(mlp, 40.0)
    assert recognised(engine) == [False, True, True]
    fresh = Engine(model).generate_ids(PROMPT, max_new_tokens=12)
    assert fresh == plain_greedy(model, PROMPT, 12)
    assert fresh != before


def test_replaced_weights_are_used() -> None:
    model = make_model("llama")
    Engine(model).generate_ids(PROMPT, max_new_tokens=3)
    engine = Engine(model)
    engine.generate_ids(PROMPT[:5], max_new_tokens=3)
    up = model.model.layers[2].mlp.up_proj
    up.weight = torch.nn.Parameter(up.weight.detach() * 30)
    other = make_prompt(40, seed=3)
    assert engine.generate_ids(other, max_new_tokens=12) == plain_greedy(model, other, 12)


@pytest.mark.parametrize("change", ["activation", "norm", "rope", "multiplier"])
def test_what_differs_in_the_arithmetic_is_left_to_torch(change: str) -> None:
    """The parts look the same; only the comparison can tell."""
    model = make_model("llama")
    layer = model.model.layers[0]
    if change == "activation":
        layer.mlp.act_fn = torch.nn.GELU()
    elif change == "norm":
        kind = type(layer.input_layernorm)

        class AddsOne(kind):  # type: ignore[misc, valid-type]
            def forward(self, hidden: torch.Tensor) -> torch.Tensor:
                return super().forward(hidden) + hidden * 0.01

        layer.input_layernorm.__class__ = AddsOne
    elif change == "rope":
        kind = type(layer.self_attn)

        class Turned(kind):  # type: ignore[misc, valid-type]
            def forward(self, *, position_embeddings: Any, **kwargs: Any) -> Any:
                cos, sin = position_embeddings
                return super().forward(position_embeddings=(cos, -sin), **kwargs)

        layer.self_attn.__class__ = Turned
    else:
        kind = type(layer)

        class Scaled(kind):  # type: ignore[misc, valid-type]
            def forward(self, hidden: Any, *args: Any, **kwargs: Any) -> Any:
                return super().forward(hidden, *args, **kwargs) * 1.01

        layer.__class__ = Scaled
    assert recognised(Engine(model)) == [False, True, True]
    assert Engine(model).generate_ids(PROMPT, max_new_tokens=8) == plain_greedy(model, PROMPT, 8)


def test_a_family_with_multipliers_is_left_to_torch() -> None:
    torch.manual_seed(0)
    config = transformers.GraniteConfig(
        vocab_size=97,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        residual_multiplier=0.22,
        attention_multiplier=0.2,
    )
    model = transformers.GraniteForCausalLM(config).eval()
    assert recognised(Engine(model)) == [False, False]
    # Without a residual multiplier its layer is the plain one, attention multiplier included.
    config.residual_multiplier = 1.0
    model = transformers.GraniteForCausalLM(config).eval()
    assert recognised(Engine(model)) == [True, True]


def test_the_model_is_as_before_after_use() -> None:
    model = make_model("llama")
    layers = list(model.model.layers)
    Engine(model).generate_ids(PROMPT, max_new_tokens=4)
    assert list(model.model.layers) == layers
    assert not any("forward" in vars(module) for module in model.modules())
    assert model.config._attn_implementation == "sdpa"
