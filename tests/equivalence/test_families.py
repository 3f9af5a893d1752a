"""The engine's logits and greedy tokens are plain transformers' own (design, section 4, rule 1)."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from unittest import mock

import pytest
import torch

from mom_core import Engine, EngineConfig
from mom_core.errors import UnsupportedModel
from mom_core.generate.sampling import Sampler
from mom_core.native import kernels
from mom_core.native.library import Kernels
from tests.equivalence.models import (
    CORE,
    FAMILIES,
    make_model,
    make_prompt,
    plain_greedy,
    plain_logits,
    relative_error,
    shared_model,
)
from tests.equivalence.without import without

TOLERANCE = 1e-4
CHUNK = 8
LENGTHS = [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5]
TIERS = ["device", "host", "disk"]
WHOLE = 512


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
    check(shared_model(family), length, EngineConfig(chunk_tokens=CHUNK))


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("family", CORE)
def test_kv_heads(family: str, kv_heads: int) -> None:
    check(make_model(family, kv_heads), 29, EngineConfig(chunk_tokens=CHUNK))


@pytest.mark.parametrize(
    ("chunk", "kv", "hidden"),
    [
        (1, "device", "device"),
        (7, "host", "host"),
        (64, "host", "device"),
        (WHOLE, "device", "host"),
        ("auto", "auto", "auto"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_chunks_and_tiers(family: str, chunk: Any, kv: Any, hidden: Any) -> None:
    length = 29 if family == "ministral3" else 70
    check(shared_model(family), length, EngineConfig(chunk_tokens=chunk, kv=kv, hidden=hidden), 32)


@pytest.mark.parametrize("kv", ["device", "host"])
@pytest.mark.parametrize("family", FAMILIES)
def test_reuse_as_a_person_causes_it(family: str, kv: Any) -> None:
    """a+b, then a+c, then a+c+d, an answer in between, and a+c once more."""
    model = shared_model(family)
    a, b, c, d = (make_prompt(n, seed=n) for n in (19, 8, 9, 5))
    engine = Engine(model, config=EngineConfig(chunk_tokens=6, kv=kv))
    # The second has its boundary kept, the first must do without.
    for boundaries in ((), (len(a),)):
        for prompt in (a + b, a + c):
            for _ in engine.read(prompt, boundaries=boundaries):
                pass
            truth = plain_logits(model, prompt)
            assert relative_error(engine.logits(prompt), truth) < TOLERANCE
        engine.context.crop(0)
    for prompt in (a + b, a + c, a + c + d, a + c):
        assert engine.generate_ids(prompt, max_new_tokens=6) == plain_greedy(model, prompt, 6)


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [*TIERS, "auto"])
@pytest.mark.parametrize("kv", [*TIERS, "auto"])
@pytest.mark.parametrize("family", FAMILIES)
def test_everything_with_everything(family: str, kv: Any, hidden: Any) -> None:
    for kv_heads in (1, 2, 6) if family in CORE else (2,):
        model = make_model(family, kv_heads)
        for chunk in (1, CHUNK, "auto"):
            for length in LENGTHS:
                check(model, length, EngineConfig(chunk_tokens=chunk, kv=kv, hidden=hidden), 6)


def decoded(engine: Engine, prompt: list[int]) -> torch.Tensor:
    """`[2, V]`: after reading all but the last token, and after one step of decoding with it."""
    logits: list[torch.Tensor] = []

    def forced(sampler: Sampler, row: torch.Tensor) -> int:
        logits.append(row.clone())
        return prompt[-1]

    with mock.patch.object(Sampler, "choose", forced):
        engine.generate_ids(prompt[:-1], max_new_tokens=2)
    return torch.stack(logits)


@torch.no_grad()
def plainly_decoded(model: Any, prompt: list[int]) -> torch.Tensor:
    """The same of plain transformers."""
    ids = torch.tensor([prompt])
    read = model(ids[:, :-1], use_cache=True, logits_to_keep=1)
    step = model(ids[:, -1:], past_key_values=read.past_key_values, use_cache=True)
    return torch.cat([read.logits[0], step.logits[0]]).float()


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_is_as_near_the_truth_as_plain_transformers(family: str) -> None:
    """Rule 2, reading and decoding. Rounding is chance: told by the mean over many prompts."""
    half = make_model(family).bfloat16()
    exact = make_model(family).bfloat16().float()
    engine = Engine(half, config=EngineConfig(chunk_tokens=16))
    logs = []
    for seed in range(48):
        prompt = make_prompt(41, seed)
        with torch.no_grad():
            truth = exact(torch.tensor([prompt]), logits_to_keep=2).logits[0]
        ours = (decoded(engine, prompt) - truth).square().mean(dim=1)
        theirs = (plainly_decoded(half, prompt) - truth).square().mean(dim=1)
        logs.append((ours.log() - theirs.log()) / 2)
    read, step = torch.stack(logs).mean(dim=0).exp().tolist()
    assert read <= 1.1
    assert step <= 1.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_our_kernels_are_among_what_is_compared(dtype: torch.dtype) -> None:
    """Else all of the above would speak of torch's kernels only."""
    ours = kernels()
    if ours is None:
        pytest.skip("there is no C compiler here")
    names = ["attend_rows", "attend_chunk"]
    with ExitStack() as stack:
        rows, chunk = (
            stack.enter_context(
                mock.patch.object(Kernels, name, autospec=True, side_effect=getattr(Kernels, name))
            )
            for name in names
        )
        engine = Engine(make_model("llama").to(dtype), config=EngineConfig(chunk_tokens=16))
        engine.generate_ids(make_prompt(45), max_new_tokens=5)
    layers = 3
    # Every layer of every step; and of three chunks, the last layer's only where it must.
    assert rows.call_count >= 4 * layers
    if dtype is torch.bfloat16 and ours.has_chunk_attention:
        assert chunk.call_count >= 3 * (layers - 1)


# A comparison proves something only where it can fail: with a feature removed, it must.


@pytest.mark.parametrize(
    ("family", "feature"),
    [(name, feature) for name, family in FAMILIES.items() for feature in family.features],
)
def test_a_missing_feature_is_caught(family: str, feature: str) -> None:
    model, prompt = make_model(family), make_prompt(29)
    truth = plain_logits(model, prompt)
    config = EngineConfig(chunk_tokens=CHUNK)
    assert relative_error(Engine(model, config=config).logits(prompt), truth) < TOLERANCE
    with without(feature, model):
        logits = Engine(model, config=config).logits(prompt)
    assert relative_error(logits, truth) > 10 * TOLERANCE


def test_a_window_that_is_not_asked_for_is_refused() -> None:
    model = make_model("qwen2-window")
    for layer in model.model.layers:
        layer.self_attn.sliding_window = None
    with pytest.raises(UnsupportedModel, match="window of 9 tokens"):
        Engine(model).logits(make_prompt(5))


def test_longrope_reads_again_when_the_rotation_changes() -> None:
    """24 tokens are read one way, 25 another, in the middle of an answer.

    Compared with reading all again for every token: `generate` of transformers 5.17 goes on with
    keys of the other rotation.
    """
    model = shared_model("phi3-longrope")
    engine = Engine(model, config=EngineConfig(chunk_tokens=5))
    prompt = make_prompt(20)
    truth: list[int] = []
    for _ in range(12):
        truth.append(int(plain_logits(model, prompt + truth).argmax()))
    assert engine.generate_ids(prompt, max_new_tokens=12) == truth
    # Back to a short prompt, and appended to across the change.
    assert engine.generate_ids(prompt, max_new_tokens=3) == truth[:3]
    longer = prompt + make_prompt(9, seed=4)
    assert relative_error(engine.logits(longer), plain_logits(model, longer)) < TOLERANCE
    assert relative_error(engine.logits(prompt), plain_logits(model, prompt)) < TOLERANCE


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
