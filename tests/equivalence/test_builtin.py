"""The built-in model on real documents: plain transformers' tokens, and its precision in bf16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from app.documents import read
from app.prompt.prompt import PromptBuilder
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


@pytest.mark.parametrize(
    "name",
    [
        name if name == "tidebell" else pytest.param(name, marks=pytest.mark.slow)
        for name in QUESTIONS
    ],
)
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


@pytest.mark.slow
def test_bf16_is_as_near_the_truth_as_plain_transformers(loaded: Any, samples: Path) -> None:
    """Rule 2, with room for the noise of 18 prompts (their mean alone is uncertain by 13 %)."""
    if load_model("smollm2-135m").model.dtype is not torch.bfloat16:
        pytest.skip("bf16 is far slower than fp32 on this CPU, so it is never chosen here")
    half = load_model("smollm2-135m", dtype=torch.bfloat16)
    engine = Engine(half.model, config=EngineConfig(chunk_tokens=256))
    ours, theirs = [], []
    for name, question in QUESTIONS.items():
        prompt = prompt_of(loaded.tokenizer, samples / name, question)
        for length in range(300, 1200, 150):
            truth = plain_logits(loaded.model, prompt[:length])
            plain = plain_logits(half.model, prompt[:length]).float()
            ours.append((engine.logits(prompt[:length]) - truth).pow(2).mean().sqrt())
            theirs.append((plain - truth).pow(2).mean().sqrt())
    assert float(sum(ours) / sum(theirs)) <= 1.3
