"""Memory that is full at any point of a run changes how it is done, never what comes out."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mom_core import Adapted, Engine, EngineConfig, Finished, OutOfMemory, Token
from mom_core.kv.tiers import Tier
from tests.equivalence.models import make_prompt, plain_greedy, shared_model

PROMPT, ANSWER = 30, 6
ERRORS = {
    "device": torch.OutOfMemoryError("CUDA out of memory."),
    "host": MemoryError(),
    "allocator": RuntimeError("DefaultCPUAllocator: can't allocate memory"),
}


@pytest.fixture(autouse=True)
def quick_collection() -> Iterator[None]:
    """Collecting the garbage of all that tests have loaded takes longer than a whole run."""
    with mock.patch("mom_core.kv.oom.gc.collect"):
        yield


class FailingOps(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    """Every operation of torch is counted; from the `first` on, `times` of them find no memory."""

    def __init__(self, first: int, times: int, error: Exception) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count, self.first, self.times, self.error = 0, first, times, error

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Views, and copies into what is there, take no memory.
        name = str(func)
        if not func.is_view and "copy_" not in name and "detach" not in name:
            self.count += 1
            if self.first <= self.count < self.first + self.times:
                raise self.error
        return func(*args, **(kwargs or {}))


@contextmanager
def failing_tiers(first: int, times: int, error: Exception) -> Iterator[list[int]]:
    """The same for the memory that tiers give."""
    empty, count = Tier.empty, [0]

    def fails(tier: Tier, *shape: int, dtype: torch.dtype) -> torch.Tensor:
        count[0] += 1
        if first <= count[0] < first + times:
            raise error
        return empty(tier, *shape, dtype=dtype)

    with mock.patch.object(Tier, "empty", fails):
        yield count


def run(engine: Engine, prompt: list[int]) -> tuple[list[int], list[Adapted]]:
    ids, adapted = [], []
    for event in engine.generate(prompt, max_new_tokens=ANSWER):
        if isinstance(event, Token):
            ids.append(event.token_id)
        elif isinstance(event, Adapted):
            adapted.append(event)
    assert isinstance(event, Finished)
    assert {layer.tokens for layer in engine.context.store.layers} == {engine.context.tokens}
    # Nothing that was read or said is missing; the last token is never read.
    assert list(engine.context.token_ids) == [*prompt, *ids[:-1]]
    return ids, adapted


@pytest.mark.parametrize("error", ["device", "host"])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize(("kv", "decode"), [("device", "host"), ("host", "device")])
def test_no_memory_at_any_place_a_tier_gives_it(
    kv: Any, decode: Any, times: int, error: str, tmp_path: Path
) -> None:
    model, prompt = shared_model("gemma2"), make_prompt(PROMPT)
    truth = plain_greedy(model, prompt, ANSWER)
    config = EngineConfig(chunk_tokens=16, kv=kv, hidden=kv, decode=decode, scratch_folder=tmp_path)
    first = 1
    while True:
        engine = Engine(model, config=config)
        with failing_tiers(first, times, ERRORS[error]) as count:
            ids, adapted = run(engine, prompt)
        assert ids == truth
        engine.close()
        if count[0] < first:
            break
        # Once may be an accident, and is tried again; then something has to change.
        assert bool(adapted) == (times > 1) or count[0] < first + times - 1
        first += 1
    assert first > 6


def every_op(family: str, kv: Any, times: int, step: int, error: str, folder: Path) -> set[str]:
    """Lets every `step`-th operation fail; what was changed in all."""
    model, prompt = shared_model(family), make_prompt(PROMPT)
    truth = plain_greedy(model, prompt, ANSWER)
    config = EngineConfig(chunk_tokens=16, kv=kv, hidden=kv, scratch_folder=folder)
    changed: set[str] = set()
    first = 1
    while True:
        engine = Engine(model, config=config)
        adapted: list[Adapted] = []
        try:
            with FailingOps(first, times, ERRORS[error]) as ops:
                ids, adapted = run(engine, prompt)
        except OutOfMemory:
            # So often at one place is too much for an answer, but what was read is unharmed.
            assert times > 2
            ids, _ = run(engine, prompt)
        assert ids == truth, f"operation {first}"
        changed |= {f"{event.phase} {event.what}" for event in adapted}
        engine.close()
        if ops.count < first:
            return changed
        first += step


@pytest.mark.parametrize("times", [1, 2, 4])
@pytest.mark.parametrize("family", ["llama", "qwen3.5"])
def test_no_memory_in_operations_of_a_run(family: str, times: int, tmp_path: Path) -> None:
    changed = every_op(family, "device", times, 211, "host", tmp_path)
    assert bool(changed) == (times > 1)


@pytest.mark.slow
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("times", [1, 2, 3, 5])
@pytest.mark.parametrize("kv", ["device", "host"])
@pytest.mark.parametrize("family", ["llama", "gpt-oss", "qwen3.5", "lfm2"])
def test_no_memory_in_any_operation_of_a_run(
    family: str, kv: Any, times: int, error: str, tmp_path: Path
) -> None:
    every_op(family, kv, times, 7, error, tmp_path)


def test_what_changed_is_said() -> None:
    model, prompt = shared_model("llama"), make_prompt(PROMPT)
    engine = Engine(model, config=EngineConfig(chunk_tokens=16))
    with failing_tiers(2, 2, MemoryError()):
        _, (adapted,) = run(engine, prompt)
    assert (adapted.what, adapted.before, adapted.after) == ("hidden", "device", "disk")
    assert (adapted.full, adapted.phase, adapted.at_layer) == ("host", "prefill", 0)
    engine.close()


def test_nothing_left_to_try_is_a_sentence_and_the_context_is_as_before() -> None:
    model, prompt = shared_model("llama"), make_prompt(PROMPT)
    engine = Engine(model, config=EngineConfig(chunk_tokens=16))
    engine.logits(prompt)
    held = engine.context.kv_bytes
    with (
        failing_tiers(1, 10**6, torch.OutOfMemoryError("CUDA out of memory.")),
        FailingOps(1, 10**6, torch.OutOfMemoryError("CUDA out of memory.")),
        pytest.raises(
            OutOfMemory, match="The device's memory is full, and so is what could take its place"
        ),
    ):
        list(engine.read(prompt + prompt))
    assert engine.context.kv_bytes == held
    assert engine.generate_ids(prompt, max_new_tokens=ANSWER) == plain_greedy(model, prompt, ANSWER)


def test_sampled_answers_are_the_same_draw_by_draw() -> None:
    model, prompt = shared_model("llama"), make_prompt(PROMPT)

    def answer(first: int) -> list[int]:
        engine = Engine(model, config=EngineConfig(chunk_tokens=16))
        hot = {"temperature": 1.5, "repetition_penalty": 1.3, "seed": 5}
        engine.logits(prompt)
        with FailingOps(first, 2, MemoryError()):
            return engine.generate_ids(prompt, max_new_tokens=ANSWER, **hot)  # type: ignore[arg-type]

    truth = answer(10**9)
    assert all(answer(first) == truth for first in range(1, 700, 23))


CAPPED = """
import resource, sys, torch
from mom_core import Adapted, Engine, EngineConfig, PrefillProgress
from tests.equivalence.models import make_model, make_prompt
model = make_model("llama")
model.config.max_position_embeddings = 32768
engine = Engine(model, config=EngineConfig(chunk_tokens=2048, kv="device", hidden="device"))
engine.generate_ids(make_prompt(64), max_new_tokens=2)
prompt = make_prompt(24000)
if sys.argv[1] != "0":
    in_use = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()
    limit = in_use + int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
adapted, logits = 0, None
reading = engine.read(prompt)
while True:
    try:
        adapted += isinstance(next(reading), Adapted)
    except StopIteration as end:
        logits = end.value
        break
print(adapted, int(logits.argmax()), float(logits.sum()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_DATA"), reason="needs a cap on memory")
def test_a_real_cap_on_memory_sends_to_the_disk(tmp_path: Path) -> None:
    def read(cap_bytes: int) -> list[str]:
        result = subprocess.run(
            [sys.executable, "-c", CAPPED, str(cap_bytes)], capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.split()

    free, capped = read(0), read(24 * 2**20)
    assert int(free[0]) == 0 < int(capped[0])
    assert capped[1] == free[1]
    assert float(capped[2]) == pytest.approx(float(free[2]), abs=1e-3)
