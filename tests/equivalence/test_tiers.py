"""Every way from home to the computation gives the same answer, and leaves home complete."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from mom_core import Engine, EngineConfig, Finished, Token
from mom_core.kv import transfer
from mom_core.kv.store import LayerKV
from tests.equivalence.models import (
    make_model,
    make_prompt,
    plain_greedy,
    plain_logits,
    relative_error,
    shared_model,
)

# Full attention, windows that alternate, sinks, and hybrids with one layer of keys and values.
KINDS = ["llama", "gemma2", "gpt-oss", "qwen3.5", "lfm2"]
TOLERANCE = 1e-4


def quoting(tokens: int) -> list[int]:
    """A prompt with repetitions, so that drafts are offered, and some of them rejected."""
    return (make_prompt(tokens // 2, seed=3) * 2)[:tokens]


@pytest.mark.parametrize(
    ("kv", "decode"),
    [("host", "device"), ("host", "stream"), ("disk", "host"), ("disk", "stream")],
)
@pytest.mark.parametrize("family", KINDS)
def test_decode_modes(family: str, kv: Any, decode: Any, tmp_path: Path) -> None:
    model, prompt = shared_model(family), quoting(40)
    config = EngineConfig(chunk_tokens=16, kv=kv, hidden=kv, decode=decode, scratch_folder=tmp_path)
    engine = Engine(model, config=config)
    ids: list[int] = []
    held = set()
    for event in engine.generate(prompt, max_new_tokens=24):
        if isinstance(event, Token):
            ids.append(event.token_id)
            held.add(engine.held_bytes.working("device") > 0)
    assert isinstance(event, Finished)
    assert ids == plain_greedy(model, prompt, 24)
    # Working memory on the device only where the mode takes some, and none afterwards.
    assert held == {decode != "host"}
    assert engine.held_bytes.working("device") == 0
    # Home holds all that was read and written: the next question goes on from it.
    assert engine.context.tokens == len(prompt) + 23
    longer = prompt + ids + make_prompt(5, seed=9)
    (*_, finished) = engine.generate(longer, max_new_tokens=1)
    assert isinstance(finished, Finished)
    assert finished.reused_tokens >= (len(prompt) + 23 if family in KINDS[:3] else 0)
    assert relative_error(engine.logits(longer), plain_logits(model, longer)) < TOLERANCE
    engine.close()


@pytest.mark.parametrize("decode", ["device", "stream"])
def test_a_closed_answer_frees_what_it_took(decode: Any) -> None:
    model, prompt = shared_model("gemma2"), quoting(40)
    engine = Engine(model, config=EngineConfig(chunk_tokens=16, kv="host", decode=decode))
    events = engine.generate(prompt, max_new_tokens=24)
    while not isinstance(next(events), Token):
        pass
    next(events)
    assert engine.held_bytes.working("device") > 0
    events.close()
    gc.collect()
    assert engine.held_bytes.working("device") == 0
    assert not any(type(thing) is transfer.StageBuffer for thing in gc.get_objects())
    assert engine.generate_ids(prompt, max_new_tokens=24) == plain_greedy(model, prompt, 24)


@pytest.mark.parametrize("decode", ["device", "stream"])
def test_a_failing_step_leaves_home_right_and_is_done_again(decode: Any) -> None:
    model, prompt = shared_model("llama"), quoting(40)
    engine = Engine(model, config=EngineConfig(chunk_tokens=16, kv="host", decode=decode))
    truth = plain_greedy(model, prompt, 12)
    append, calls = LayerKV.append, 0

    def fails_once(kv: LayerKV, keys: torch.Tensor, values: torch.Tensor) -> None:
        nonlocal calls
        if keys.shape[2] <= 8:
            calls += 1
            if calls == 11:
                raise MemoryError
        append(kv, keys, values)

    with mock.patch.object(LayerKV, "append", fails_once):
        assert engine.generate_ids(prompt, max_new_tokens=12) == truth
    assert calls > 11
    assert {layer.tokens for layer in engine.context.store.layers} == {engine.context.tokens}
    assert engine.generate_ids(prompt, max_new_tokens=12) == truth


def test_home_is_written_once_and_only_at_its_end() -> None:
    """Appending never touches what is there: the paper's other cost, a cache written again."""
    model, prompt = make_model("llama"), quoting(40)
    written: list[tuple[int, int]] = []
    append = LayerKV.append

    def noted(kv: LayerKV, keys: torch.Tensor, values: torch.Tensor) -> None:
        written.append((id(kv), keys.shape[2]))
        append(kv, keys, values)

    for decode in ("device", "stream"):
        engine = Engine(
            model,
            config=EngineConfig(chunk_tokens=16, kv="host", decode=decode, lookup="off"),
        )
        with mock.patch.object(LayerKV, "append", noted):
            engine.generate_ids(prompt, max_new_tokens=10)
        homes = {id(layer) for layer in engine.context.store.layers}
        at_home = [tokens for kv, tokens in written if kv in homes]
        assert sum(at_home) == 3 * (len(prompt) + 9)
        written.clear()
