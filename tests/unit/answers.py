"""Answers with a library, for its tests."""

from __future__ import annotations

from typing import Any

from app.library.entry import DocumentInfo
from app.library.reuse import Reuse
from mom_core import Engine, EngineConfig, Finished, Token
from tests.equivalence.models import plain_greedy, shared_model

CONFIG = EngineConfig(chunk_tokens=32)
ANSWER = 4


def answer(
    reuse: Reuse, prompt: list[int], model: Any = None, name: str = "a.pdf"
) -> tuple[list[int], Finished]:
    """What a new engine says, with the library."""
    engine = Engine(model or shared_model("llama"), config=CONFIG, name="tiny")
    documents = [DocumentInfo(name, "0" * 64)]
    events = list(reuse.generate(engine, prompt, documents=documents, max_new_tokens=ANSWER))
    reuse.wait()
    ids = [event.token_id for event in events if isinstance(event, Token)]
    assert ids == plain_greedy(engine.model, prompt, ANSWER)
    assert isinstance(events[-1], Finished)
    return ids, events[-1]
