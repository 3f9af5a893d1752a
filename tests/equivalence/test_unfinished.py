"""An interrupted reading is taken up where it was, and nothing of the result tells."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mom_core import Engine, EngineConfig, Finished, PrefillProgress, Token
from tests.equivalence.contents import contents
from tests.equivalence.models import (
    LONGROPE_AT,
    make_prompt,
    plain_greedy,
    plain_logits,
    relative_error,
    shared_model,
)

KINDS = ["llama", "gemma2", "gpt-oss", "qwen3.5", "lfm2"]
TOLERANCE = 1e-4
CHUNK = EngineConfig(chunk_tokens=8)


def interrupt(engine: Engine, prompt: list[int], draws: int) -> None:
    reading = engine.read(prompt)
    for _ in range(draws):
        next(reading)
    reading.close()


@pytest.mark.parametrize("kv", ["device", "host", "disk"])
@pytest.mark.parametrize("family", KINDS)
def test_reading_goes_on_bit_by_bit_as_without_a_stop(family: str, kv: Any, tmp_path: Any) -> None:
    model, prompt = shared_model(family), make_prompt(40)
    config = EngineConfig(chunk_tokens=8, kv=kv, hidden=kv, scratch_folder=tmp_path)
    plain = Engine(model, config=config)
    logits = plain.logits(prompt)
    truth = contents(plain.context)
    for draws in (1, 5, 7, 12, 14):
        engine = Engine(model, config=config)
        interrupt(engine, prompt, draws)
        assert engine.context.tokens == 0
        events = list(engine.generate(prompt, max_new_tokens=4))
        first, finished = events[0], events[-1]
        assert isinstance(first, PrefillProgress)
        assert isinstance(finished, Finished)
        steps = sum(isinstance(event, PrefillProgress) for event in events)
        assert draws + steps == 5 * len(engine.context.store.layers)
        assert 0 < first.resumed_fraction < first.fraction
        assert finished.resumed_fraction == first.resumed_fraction
        assert torch.equal(engine.logits(prompt), logits)
        engine.context.crop(40)
        for mine, expected in zip(contents(engine.context), truth, strict=True):
            assert torch.equal(mine, expected)
        engine.close()
    plain.close()


@pytest.mark.parametrize("draws", [3, 8, 13])
@pytest.mark.parametrize("family", KINDS)
def test_another_prompt_takes_what_both_begin_with(family: str, draws: int) -> None:
    model, prompt = shared_model(family), make_prompt(40)
    other = prompt[:29] + make_prompt(9, seed=5)
    engine = Engine(model, config=CHUNK)
    interrupt(engine, prompt, draws)
    assert relative_error(engine.logits(other), plain_logits(model, other)) < TOLERANCE
    engine.context.crop(0)
    interrupt(engine, prompt, draws)
    nothing_in_common = make_prompt(20, seed=6)
    truth = plain_greedy(model, nothing_in_common, 5)
    assert engine.generate_ids(nothing_in_common, max_new_tokens=5) == truth
    assert not engine.context.has_unfinished


@pytest.mark.parametrize("family", ["llama", "qwen3.5"])
def test_a_follow_up_is_interrupted_too(family: str) -> None:
    model, prompt = shared_model(family), make_prompt(20)
    longer = prompt + make_prompt(20, seed=2)
    engine = Engine(model, config=CHUNK)
    engine.logits(prompt)
    interrupt(engine, longer, 4)
    assert engine.context.tokens == 20
    assert relative_error(engine.logits(longer), plain_logits(model, longer)) < TOLERANCE
    interrupt(engine, longer + prompt, 4)
    # What was read before is as it was.
    assert engine.generate_ids(longer, max_new_tokens=5) == plain_greedy(model, longer, 5)


def test_many_stops_in_one_reading() -> None:
    model, prompt = shared_model("qwen3.5"), make_prompt(40)
    engine = Engine(model, config=CHUNK)
    for _ in range(19):
        interrupt(engine, prompt, 1)
    events = list(engine.generate(prompt, max_new_tokens=1))
    assert sum(isinstance(event, PrefillProgress) for event in events) == 1
    assert relative_error(engine.logits(prompt), plain_logits(model, prompt)) < TOLERANCE


def test_positions_that_are_rotated_otherwise_are_not_taken_up() -> None:
    model = shared_model("phi3-longrope")
    prompt = make_prompt(LONGROPE_AT + 10)
    engine = Engine(model, config=CHUNK)
    interrupt(engine, prompt, 6)
    short = prompt[: LONGROPE_AT - 4]
    assert relative_error(engine.logits(short), plain_logits(model, short)) < TOLERANCE
    ids = [e.token_id for e in engine.generate(prompt, max_new_tokens=4) if isinstance(e, Token)]
    assert ids == plain_greedy(model, prompt, 4)
