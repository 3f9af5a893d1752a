"""The built-in model on real documents: plain transformers' tokens, and its precision in bf16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from app.documents import read
from app.prompt import PromptBuilder
from mom_core import Engine, EngineConfig
from mom_core.model.load import load_model
from tests.equivalence.models import plain_greedy, plain_logits, relative_error

pytestmark = pytest.mark.builtin
QUESTIONS = {
    "observatory-handbook.pdf": "Who built the observatory?",
    "beekeeping-guide.md": "How much food does a colony need for winter?",
    "tidebell": "What does exit code 3 mean?",
}


@pytest.fixture(scope="module")
def loaded() -> Any:
    return load_model("smollm2-135m", dtype=torch.float32)


def prompt_of(tokenizer: Any, path: Path, question: str) -> list[int]:
    builder = PromptBuilder(tokenizer)
    return list(builder.build([builder.tokenize(read(path))], [], question).token_ids)


@pytest.mark.parametrize("name", QUESTIONS)
def test_128_greedy_tokens(loaded: Any, samples: Path, name: str) -> None:
    prompt = prompt_of(loaded.tokenizer, samples / name, QUESTIONS[name])
    assert len(prompt) > 1000
    engine = Engine(loaded.model, config=EngineConfig(chunk_tokens=300, kv="host", hidden="host"))
    assert relative_error(engine.logits(prompt), plain_logits(loaded.model, prompt)) < 1e-4
    # Plain transformers is asked to go past the end of the answer, and so are we.
    loaded.model.generation_config.eos_token_id = []
    loaded.model.config.eos_token_id = []
    ours = engine.generate_ids(prompt, max_new_tokens=128)
    assert len(ours) == 128
    assert ours == plain_greedy(loaded.model, prompt, 128)


def test_bf16_is_as_near_the_truth_as_plain_transformers(loaded: Any, samples: Path) -> None:
    half = load_model("smollm2-135m", dtype=torch.bfloat16)
    ours_sum = theirs_sum = 0.0
    for name, question in QUESTIONS.items():
        prompt = prompt_of(loaded.tokenizer, samples / name, question)[:700]
        truth = plain_logits(loaded.model, prompt)
        ours = Engine(half.model, config=EngineConfig(chunk_tokens=256)).logits(prompt)
        ours_sum += float((ours - truth).pow(2).mean())
        theirs_sum += float((plain_logits(half.model, prompt).float() - truth).pow(2).mean())
    assert ours_sum**0.5 <= 1.1 * theirs_sum**0.5
