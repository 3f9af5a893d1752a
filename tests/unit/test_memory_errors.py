"""Memory that cannot be had is said in a sentence, and other errors are left as they are."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from mom_core import Engine, OutOfMemory
from mom_core.kv.store import LayerKV
from tests.equivalence.models import make_prompt, shared_model


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (torch.AcceleratorError("CUDA error: out of memory\nCompile with ..."), "This machine's"),
        (RuntimeError("CUDA error: out of memory"), "This machine's"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate"), "This machine's"),
        (MemoryError(), "This machine's"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "The GPU's"),
    ],
)
def test_full_memory_is_a_sentence(error: BaseException, sentence: str) -> None:
    with (
        mock.patch.object(LayerKV, "append", side_effect=error),
        pytest.raises(OutOfMemory, match=f"^{sentence} memory is full. [A-Z]"),
    ):
        Engine(shared_model("llama")).generate_ids(make_prompt(9), max_new_tokens=1)


def test_other_errors_are_not_taken_for_it() -> None:
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    with (
        mock.patch.object(LayerKV, "append", side_effect=error),
        pytest.raises(RuntimeError, match="illegal"),
    ):
        Engine(shared_model("llama")).generate_ids(make_prompt(9), max_new_tokens=1)
