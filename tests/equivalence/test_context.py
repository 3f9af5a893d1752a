"""Appending, cropping, reuse and cancelling change the work, never the answer."""

from __future__ import annotations

from typing import Any

import pytest

from mom_core import (
    ContextTooLong,
    Engine,
    EngineConfig,
    Finished,
    InvalidSetting,
    PrefillProgress,
    SamplingConfig,
    Token,
)
from tests.equivalence.models import (
    make_model,
    make_prompt,
    plain_greedy,
    plain_logits,
    relative_error,
)

TOLERANCE = 1e-4


@pytest.fixture(params=["llama", "mistral"])
def model(request: Any) -> Any:
    return make_model(request.param)


@pytest.mark.parametrize("kv", ["device", "host", "disk"])
def test_a_second_prefill_appends(model: Any, kv: Any) -> None:
    engine = Engine(model, config=EngineConfig(chunk_tokens=4, kv=kv))
    prompt = make_prompt(30)
    list(engine.read(prompt[:11]))
    list(engine.read(prompt[:13]))
    assert engine.context.token_ids == tuple(prompt[:13])
    assert relative_error(engine.logits(prompt), plain_logits(model, prompt)) < TOLERANCE


def test_crop_drops_a_tail(model: Any) -> None:
    engine = Engine(model, config=EngineConfig(chunk_tokens=4))
    prompt, other = make_prompt(30), make_prompt(30, seed=1)
    engine.logits(prompt)
    engine.context.crop(10)
    mixed = prompt[:10] + other
    list(engine.read(mixed[:-1]))
    assert relative_error(engine.logits(mixed), plain_logits(model, mixed)) < TOLERANCE
    with pytest.raises(InvalidSetting, match="crop to 99 tokens: the context holds 40"):
        engine.context.crop(99)


def test_the_longest_common_prefix_is_not_read_again(model: Any) -> None:
    engine = Engine(model, config=EngineConfig(chunk_tokens=4))
    first = make_prompt(20)
    answer = engine.generate_ids(first, max_new_tokens=5)
    second = first + answer + make_prompt(6, seed=2)
    events = list(engine.generate(second, max_new_tokens=5))
    finished = events[-1]
    assert isinstance(finished, Finished)
    # The last token of an answer was never read, as nothing was computed from it.
    assert finished.reused_tokens == len(first) + len(answer) - 1
    ids = [event.token_id for event in events if isinstance(event, Token)]
    assert ids == plain_greedy(model, second, 5)


def test_the_same_prompt_again_gives_the_same_answer(model: Any) -> None:
    engine = Engine(model)
    prompt = make_prompt(20)
    assert engine.generate_ids(prompt, max_new_tokens=6) == engine.generate_ids(
        prompt, max_new_tokens=6
    )


@pytest.mark.parametrize("draws", [1, 4, 21, 22])
def test_closing_stops_and_the_context_stays_right(model: Any, draws: int) -> None:
    engine = Engine(model, config=EngineConfig(chunk_tokens=4))
    prompt = make_prompt(25)
    events = engine.generate(prompt, max_new_tokens=5)
    for _ in range(draws):
        next(events)
    events.close()
    assert (
        (engine.held_bytes.working("device") > 0) == engine.context.has_unfinished == (draws < 22)
    )
    assert engine.held_bytes.working("host") == 0
    engine.context.drop_unfinished()
    assert engine.held_bytes.working("device") == 0
    assert engine.generate_ids(prompt, max_new_tokens=5) == plain_greedy(model, prompt, 5)


def test_progress_rises_to_the_whole(model: Any) -> None:
    engine = Engine(model, config=EngineConfig(chunk_tokens=4))
    events = list(engine.read(make_prompt(25)))
    assert all(isinstance(event, PrefillProgress) for event in events)
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    assert len(events) >= 3 * 7
    assert events[-1].token_layers_done == events[-1].token_layers_total == 25 * 3


def test_too_long_names_both_numbers(model: Any) -> None:
    with pytest.raises(ContextTooLong, match=r"600 tokens.*512"):
        Engine(model).logits(make_prompt(600))


def test_sampling_is_repeatable_and_obeys_top_k(model: Any) -> None:
    engine, prompt = Engine(model), make_prompt(15)
    hot = {"max_new_tokens": 10, "temperature": 1.5}
    one = engine.generate_ids(prompt, seed=3, **hot)  # type: ignore[arg-type]
    assert one == engine.generate_ids(prompt, seed=3, **hot)  # type: ignore[arg-type]
    others = [engine.generate_ids(prompt, seed=seed, **hot) for seed in range(4)]  # type: ignore[arg-type]
    assert any(other != one for other in others)
    greedy = engine.generate_ids(prompt, max_new_tokens=10)
    assert engine.generate_ids(prompt, seed=3, top_k=1, **hot) == greedy  # type: ignore[arg-type]


def test_every_eos_ends_the_answer() -> None:
    model = make_model("llama")
    prompt = make_prompt(15)
    truth = plain_greedy(model, prompt, 8)
    stop = truth[3]
    model.generation_config.eos_token_id = [95, stop]
    end = truth.index(stop) + 1
    assert Engine(model).generate_ids(prompt, max_new_tokens=8) == truth[:end]


@pytest.mark.parametrize("bad", [[], [97], [-1]])
def test_impossible_tokens_are_refused(bad: list[int]) -> None:
    with pytest.raises(InvalidSetting):
        Engine(make_model("llama")).logits(bad)


def test_settings_name_the_value_and_what_is_allowed() -> None:
    with pytest.raises(InvalidSetting, match=r"chunk_tokens is 0; it must be a whole number"):
        EngineConfig(chunk_tokens=0)
    with pytest.raises(
        InvalidSetting, match=r"kv is 'tape'; it must be one of auto, device, host, d"
    ):
        EngineConfig(kv="tape")  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting, match=r"temperature is -1; it must be 0"):
        SamplingConfig(temperature=-1)
