"""A window beyond the model's own: as a model configured for YaRN, and only on request."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from mom_core import ContextTooLong, Engine, EngineConfig, InvalidSetting
from tests.equivalence.models import (
    make_model,
    make_prompt,
    plain_greedy,
    plain_logits,
    relative_error,
)

NATIVE, WANTED = 512, 1280
EXTENDED = EngineConfig(chunk_tokens=100, context_tokens=WANTED, extend="yarn")


def configured_for_yarn(family: str) -> Any:
    """The same weights in a model that transformers made with YaRN in its configuration."""
    model = make_model(family)
    config = copy.deepcopy(model.config)
    text = config.get_text_config()
    text.rope_parameters = {
        **text.rope_parameters,
        "rope_type": "yarn",
        "factor": WANTED / NATIVE,
        "original_max_position_embeddings": NATIVE,
    }
    text.max_position_embeddings = WANTED
    made = type(model)(config).eval()
    made.load_state_dict(model.state_dict())
    return made


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "glm4", "qwen3.5"])
def test_yarn_is_what_transformers_makes_of_it(family: str) -> None:
    truth = configured_for_yarn(family)
    engine = Engine(make_model(family), config=EXTENDED)
    assert engine.context_window_tokens == WANTED
    for length in (30, 700):
        prompt = make_prompt(length)
        expected = plain_logits(truth, prompt)
        assert relative_error(engine.logits(prompt), expected) < 1e-4
        # Short prompts, too, are answered otherwise than by the model as it was.
        if length < NATIVE:
            as_it_was = plain_logits(make_model(family), prompt)
            assert relative_error(as_it_was, expected) > 1e-3
    prompt = make_prompt(600)
    assert engine.generate_ids(prompt, max_new_tokens=8) == plain_greedy(truth, prompt, 8)


def test_the_warning_says_what_changes() -> None:
    (warning,) = Engine(make_model("llama"), config=EXTENDED, name="tiny").warnings
    assert warning == (
        "YaRN extends the context window of tiny from 512 to 1,280 tokens: positions are "
        "stretched 2.5 times. This also changes the answers to short prompts, and the model was "
        "not made for such lengths."
    )
    assert Engine(make_model("llama")).warnings == ()


def test_a_smaller_window_is_a_limit() -> None:
    engine = Engine(make_model("llama"), config=EngineConfig(context_tokens=20))
    assert engine.warnings == ()
    assert len(engine.generate_ids(make_prompt(18), max_new_tokens=9)) == 3
    with pytest.raises(ContextTooLong, match=r"21 tokens.*at most 20"):
        engine.logits(make_prompt(21))


def test_a_longer_window_is_never_taken_by_itself() -> None:
    with pytest.raises(InvalidSetting, match=r'1,280 tokens .* made for 512\. .* extend="yarn"'):
        Engine(make_model("llama"), config=EngineConfig(context_tokens=WANTED))
    with pytest.raises(InvalidSetting, match="context_tokens is not set"):
        EngineConfig(extend="yarn")
    with pytest.raises(InvalidSetting, match="extend is 'ntk'; it must be one of off, yarn"):
        EngineConfig(context_tokens=WANTED, extend="ntk")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("gemma3", "its layers do not all rotate positions in the same way"),
        ("phi3-longrope", "its positions are already scaled (longrope)"),
    ],
)
def test_what_cannot_be_stretched_is_refused(family: str, why: str) -> None:
    model = make_model(family)
    config = EngineConfig(context_tokens=100_000, extend="yarn")
    with pytest.raises(InvalidSetting) as refused:
        Engine(model, config=config)
    assert why in str(refused.value)


def test_the_window_is_set_once() -> None:
    engine = Engine(make_model("llama"))
    with pytest.raises(InvalidSetting, match="Load the model again"):
        engine.configure(EXTENDED)
