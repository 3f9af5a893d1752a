"""The timeline's ring: thinned evenly, one run at a time, with marks and peaks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise

import pytest

from app.memory_feeds import _row
from app.memory_history import POINTS, MemoryHistory, Now
from tests.unit.test_view_state import sample


class Clock:
    now = 100.0

    def __call__(self) -> float:
        self.now += 0.25
        return self.now


@pytest.fixture
def history() -> Iterator[MemoryHistory]:
    # Nothing is at work, so the thread sleeps and the test takes the readings.
    made = MemoryHistory(lambda: sample(has_card=True), lambda: Now("", "reading", 3), Clock())
    yield made
    made.close()


def test_a_long_run_is_thinned_evenly_and_keeps_its_beginning(history: MemoryHistory) -> None:
    history.begin("run")
    for _ in range(10 * POINTS):
        history.read()
    points, _ = history.since(0)
    assert POINTS // 2 <= len(points) < POINTS
    assert points[0].number == 0
    gaps = {b.number - a.number for a, b in pairwise(points)}
    assert len(gaps) == 1
    assert points[-1].number > 10 * POINTS - 2 * max(gaps)


def test_only_what_is_new_is_sent(history: MemoryHistory) -> None:
    history.begin("run")
    history.read()
    first, _ = history.since(0)
    history.read()
    history.mark("chunk 8,192 -> 4,096, continued")
    new, marks = history.since(first[-1].number + 1)
    assert [point.number for point in new] == [2]
    assert marks[0].text == "chunk 8,192 -> 4,096, continued"
    # A point is small: a page that is open all day must not load the line.
    assert len(json.dumps(_row(new[0]))) < 100


def test_another_run_begins_anew(history: MemoryHistory) -> None:
    history.begin("one")
    history.mark("something")
    history.begin("two")
    points, marks = history.since(0)
    assert (len(points), points[0].number, marks) == (1, 0, [])
    assert points[0].layer == 3


def test_the_peak_counts_the_model_alone(history: MemoryHistory) -> None:
    history.begin("run")
    device, host = history.peak_bytes
    gib = 2**30
    assert device == 5 * gib
    assert host == gib // 2
