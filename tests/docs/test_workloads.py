"""Every peer gets the same ids: of the exact length, and of text that is not repeated."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.workloads import distinct_text, make_workload


class Words:
    """A tokenizer with an id for each word."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def __call__(self, text: str, **_: Any) -> SimpleNamespace:
        ids = [self._ids.setdefault(word, len(self._ids)) for word in text.split()]
        return SimpleNamespace(input_ids=ids)


def test_prompts_have_the_length_asked_for() -> None:
    work = make_workload(Words(), tokens=3000, new_tokens=8, threads=2)  # type: ignore[arg-type]
    assert len(work.prompt_ids) == 3000
    assert [len(ids) for ids in work.quote_ids] == [3000] * 3
    assert len(work.short_ids) == 1000
    # So that a cache of the document serves them all.
    assert work.quote_ids[0][:2500] == work.prompt_ids[:2500]


def test_text_does_not_repeat_itself() -> None:
    lines = [line for line in distinct_text()[:40_000].splitlines() if len(line) > 40]
    assert len(set(lines)) > 0.9 * len(lines)


def test_too_much_is_refused() -> None:
    with pytest.raises(ValueError, match="the distinct text has"):
        make_workload(Words(), tokens=10**9, new_tokens=8, threads=2)  # type: ignore[arg-type]
