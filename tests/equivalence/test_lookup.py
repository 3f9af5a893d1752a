"""Drafts change the number of steps, never the answer."""

from __future__ import annotations

from typing import Any

import pytest

import mom_core.generate.lookup as lookup_module
from mom_core import Engine, EngineConfig, Finished, SamplingConfig, Token
from tests.equivalence.models import (
    FAMILIES,
    LONGROPE_AT,
    make_prompt,
    plain_greedy,
    shared_model,
)

OFF = EngineConfig(lookup="off")


@pytest.fixture(autouse=True)
def always_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model hardly repeats itself: one token must do for a match, and nothing stops it."""
    monkeypatch.setattr(lookup_module, "_MATCH_TOKENS", 1)
    monkeypatch.setattr(lookup_module, "_PAYS_FROM", -1)


def run(engine: Engine, prompt: list[int], **settings: Any) -> tuple[list[int], Finished]:
    events = list(engine.generate(prompt, **settings))
    finished = events[-1]
    assert isinstance(finished, Finished)
    return [event.token_id for event in events if isinstance(event, Token)], finished


@pytest.mark.parametrize("kv", ["device", "host"])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_are_the_same(family: str, kv: Any) -> None:
    model = shared_model(family)
    engine = Engine(model, config=EngineConfig(chunk_tokens=16, kv=kv))
    new = 24 if family != "phi3-longrope" else 4
    for seed in range(3):
        prompt = make_prompt(20, seed)
        tokens, finished = run(engine, prompt, max_new_tokens=new)
        assert tokens == plain_greedy(model, prompt, new)
        assert finished.decode_steps <= new - 1
        # And on it goes, on what was kept.
        longer = prompt + tokens + make_prompt(4, seed + 9)
        assert run(engine, longer, max_new_tokens=8)[0] == plain_greedy(model, longer, 8)


def test_a_repeating_answer_takes_fewer_steps() -> None:
    model = shared_model("llama")
    engine = Engine(model)
    prompt = make_prompt(20, seed=1)
    # With its own answer in the context, all of it can be offered.
    answer = engine.generate_ids(prompt, max_new_tokens=100)
    assert answer == plain_greedy(model, prompt, 100)
    _, drafted = run(Engine(model), prompt, max_new_tokens=100)
    _, single = run(Engine(model, config=OFF), prompt, max_new_tokens=100)
    assert single.decode_steps == 99
    assert single.tokens_per_step == 1
    assert drafted.decode_steps < 60
    assert drafted.tokens_per_step > 1.6


@pytest.mark.parametrize("seed", range(4))
def test_sampled_answers_are_the_same_draw_by_draw(seed: int) -> None:
    model, prompt = shared_model("qwen3"), make_prompt(30)
    sampling = SamplingConfig(temperature=0.4, repetition_penalty=1.05, top_p=0.9, seed=seed)
    ours = run(Engine(model), prompt, max_new_tokens=60, sampling=sampling)
    plain = run(Engine(model, config=OFF), prompt, max_new_tokens=60, sampling=sampling)
    assert ours[0] == plain[0]


def test_an_end_within_a_draft_ends_the_answer() -> None:
    model = shared_model("llama")
    prompt = make_prompt(20)
    truth = plain_greedy(model, prompt, 60)
    for stop in set(truth[5:]):
        engine = Engine(model)
        model.generation_config.eos_token_id = stop
        try:
            expected = truth[: truth.index(stop) + 1]
            assert engine.generate_ids(prompt, max_new_tokens=60) == expected
            # All that was read, and nothing that was not said.
            assert list(engine.context.token_ids) == prompt + expected[:-1]
        finally:
            model.generation_config.eos_token_id = None


@pytest.mark.parametrize("new_tokens", [1, 2, 3, 7, 20])
def test_never_more_tokens_than_asked(new_tokens: int) -> None:
    model = shared_model("llama")
    tokens = Engine(model).generate_ids(make_prompt(20), max_new_tokens=new_tokens)
    assert len(tokens) == new_tokens


def test_closing_in_mid_answer_leaves_the_context_right() -> None:
    model = shared_model("llama")
    engine = Engine(model)
    prompt = make_prompt(20)
    truth = plain_greedy(model, prompt, 60)
    for draws in range(1, 40, 3):
        events = engine.generate(prompt, max_new_tokens=60)
        for _ in range(draws):
            next(events)
        events.close()
        assert engine.context.tokens == engine.context.store.tokens
        longer = prompt + truth[:7]
        assert engine.generate_ids(longer, max_new_tokens=10) == truth[7:17]


def test_a_recurrent_model_is_not_drafted_for() -> None:
    model = shared_model("qwen3.5")
    _, finished = run(Engine(model), make_prompt(20), max_new_tokens=30)
    assert finished.decode_steps == 29


def test_drafts_stop_where_the_rotation_changes() -> None:
    model = shared_model("phi3-longrope")
    prompt = [3] * (LONGROPE_AT - 4)
    ours = run(Engine(model), prompt, max_new_tokens=12)[0]
    assert ours == run(Engine(model, config=OFF), prompt, max_new_tokens=12)[0]
