"""The timeline's ring: thinned evenly, one run at a time, with marks and peaks."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from app.server.updates.feeds import MemoryFeed, TimelineFeed, _row
from app.server.updates.stream import TICK_SECONDS
from app.workspace.memory_timeline import POINTS, MemoryTimeline, Now
from mom_core.events import Adapted, Event
from tests.unit.samples import sample


class Clock:
    now = 100.0

    def __call__(self) -> float:
        self.now += 0.25
        return self.now


@pytest.fixture
def history() -> Iterator[MemoryTimeline]:
    # Nothing is at work, so the thread sleeps and the test takes the readings.
    made = MemoryTimeline(lambda: sample(has_card=True), lambda: Now("", "reading", 3), Clock())
    yield made
    made.close()


def test_a_long_run_is_thinned_evenly_and_keeps_its_beginning(history: MemoryTimeline) -> None:
    history.begin("run")
    for _ in range(10 * POINTS):
        history.read()
    points, _ = history.since(0)
    assert POINTS // 2 <= len(points) < POINTS
    assert points[0].number == 0
    gaps = {b.number - a.number for a, b in pairwise(points)}
    assert len(gaps) == 1
    assert points[-1].number > 10 * POINTS - 2 * max(gaps)


def test_only_what_is_new_is_sent(history: MemoryTimeline) -> None:
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


def test_hidden_states_are_told_apart_from_other_activations() -> None:
    with_hidden = replace(
        sample(has_card=True), device_activations_bytes=5 << 20, device_hidden_bytes=3 << 20
    )
    made = MemoryTimeline(lambda: with_hidden, lambda: Now("", "reading", 3), Clock())
    made.begin("run")
    point = made.since(0)[0][0]
    made.close()
    assert _row(point)[3][2:4] == [3, 2]
    assert len(_row(point)[4]) == len(_row(point)[3]) + 1


def test_memory_that_ran_out_leaves_a_mark(history: MemoryTimeline) -> None:
    adapted = Adapted(
        what="chunk_tokens",
        before=8192,
        after=4096,
        full="device",
        phase="prefill",
        at_layer=3,
        at_token=0,
    )
    history.begin("run")
    assert list(history.following(iter_of(adapted))) == [adapted]
    assert history.since(0)[1][0].text == "GPU memory full: chunk 8,192 \u2192 4,096, continued"


def iter_of(event: Event) -> Generator[Event, None, None]:
    yield event


def test_a_page_that_is_open_costs_less_than_5_kb_a_second(history: MemoryTimeline) -> None:
    # Large figures, as of a machine of 2 TiB.
    large = replace(sample(has_card=True), host_total_bytes=2**41, host_available_bytes=2**40)
    history._sample = lambda: large
    history.begin("run")
    workspace = SimpleNamespace(
        history=history,
        is_busy=True,
        model=SimpleNamespace(memory=lambda: large),
        last_foreseen=None,
    )
    feeds: list[Any] = [MemoryFeed(workspace), TimelineFeed(workspace)]  # type: ignore[arg-type]
    for feed in feeds:
        list(feed.poll())
    sent, seconds = 0, 30
    for tick in range(int(seconds / TICK_SECONDS)):
        if tick % 3 == 0:
            history.read()
        for feed in feeds:
            sent += sum(len(json.dumps(news)) + 16 for news in feed.poll())
    assert 200 < sent / seconds < 2500


def test_another_run_begins_afresh(history: MemoryTimeline) -> None:
    history.begin("one")
    history.mark("something")
    history.begin("two")
    points, marks = history.since(0)
    assert (len(points), points[0].number, marks) == (1, 0, [])
    assert points[0].layer == 3


def test_the_peak_counts_the_model_alone(history: MemoryTimeline) -> None:
    history.begin("run")
    device, host = history.peak_bytes
    gib = 2**30
    assert device == 5 * gib
    assert host == gib // 2
