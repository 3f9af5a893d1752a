"""What a running answer costs: bytes on the line and work in the browser, at its beginning and at
its end, in an empty chat and in a long one; and that the page can be used meanwhile."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import expect

from app.prompt.prompt import Turn
from app.server.updates.feeds import MemoryFeed, TimelineFeed
from app.server.updates.stream import Feed, feeds
from app.workspace.conversations import Answered
from app.workspace.workspace import Workspace
from benchmarks.paced_answer import PacedAnswer, answering, at_speed
from tests.browser.conftest import Site, empty

BATCH = 8


def size(all_feeds: list[Feed]) -> int:
    """Bytes that a tab is sent at one tick."""
    return sum(
        len(f"event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode())
        for feed in all_feeds
        for kind, data in feed.poll()
    )


@contextmanager
def step_by_step(workspace: Workspace, tokens: int) -> Iterator[threading.Semaphore]:
    """A run whose tokens come when the semaphore lets them."""
    allowed = threading.Semaphore(0)
    with answering(workspace, PacedAnswer(tokens, lambda index: allowed.acquire() and None)):
        workspace.ask("What is in it?")
        try:
            yield allowed
        finally:
            allowed.release(tokens)
            workspace.stop()
            while workspace.is_busy:
                time.sleep(0.01)


def bytes_of_batches(workspace: Workspace, tokens: int) -> list[int]:
    """What each batch of an answer's tokens costs a tab that shows it, gauges aside."""
    chat = workspace.conversations.newest.id
    all_feeds = [
        one for one in feeds(workspace, chat) if not isinstance(one, MemoryFeed | TimelineFeed)
    ]
    sizes = []
    with step_by_step(workspace, tokens) as allowed:
        for done in range(BATCH, tokens + 1, BATCH):
            allowed.release(BATCH)
            while len(workspace.run(chat).answer_ids) < done:
                time.sleep(0.0005)
            sizes.append(size(all_feeds))
    return sizes


def test_bytes_do_not_grow_with_the_answer(site: Site) -> None:
    empty(site.workspace)
    sizes = bytes_of_batches(site.workspace, 5000)
    # The first batches bring what else the tab shows.
    first, last = sum(sizes[10:72]), sum(sizes[-62:])
    assert last < 1.1 * first
    assert last / (62 * BATCH) < 120


def test_bytes_do_not_grow_with_the_conversation(site: Site) -> None:
    workspace = site.workspace
    empty(workspace)
    short = bytes_of_batches(workspace, 400)
    empty(workspace)
    chat = workspace.conversations.newest.id
    for number in range(20):
        turn = Turn(f"Question {number}?", (100,) * 50, "word " * 400)
        workspace.conversations.append(chat, Answered(turn, "Wrote 50.", "", (), "smollm2-135m"))
    long = bytes_of_batches(workspace, 400)
    assert sum(long[10:]) < 1.1 * sum(short[10:])
    empty(workspace)


def test_a_live_page_takes_less_than_5_kb_a_second(site: Site, samples: Any) -> None:
    """While a long document is read, with a document on the shelf, gauges and timeline drawn."""
    from app.workspace.listed_document import Source

    workspace = site.workspace
    empty(workspace)
    workspace.documents.add("a" * 32, Source(samples / "observatory-handbook.pdf", "handbook.pdf"))
    while workspace.documents.is_preparing:
        time.sleep(0.05)
    all_feeds = feeds(workspace, workspace.conversations.newest.id)
    answer = PacedAnswer(1, lambda index: None, reading_seconds=60.0)
    with answering(workspace, answer):
        workspace.ask("What is in it?")
        began, sent = time.monotonic(), 0
        while time.monotonic() < began + 4:
            tick = size(all_feeds)
            # At first it is told all there is.
            sent += tick if time.monotonic() > began + 1 else 0
            time.sleep(0.08)
        workspace.stop()
        while workspace.is_busy:
            time.sleep(0.01)
    empty(workspace)
    assert 0 < sent / 3 < 5000


_COUNT_CHANGES = """() => { window.changes = 0; new MutationObserver((records) => {
    for (const one of records) changes += one.addedNodes.length + one.removedNodes.length + 1;
}).observe(document.querySelector('#chat'), { subtree: true, childList: true, characterData: true })
}"""


def stream_and_count(page: Any, site: Site, tokens: int, part: int) -> tuple[float, float]:
    """Changes of the page's tree for the first and the last tokens of an answer, per token."""
    page.evaluate(_COUNT_CHANGES)
    with answering(site.workspace, PacedAnswer(tokens, at_speed(250))):
        page.fill("#question textarea", "What is in it?")
        page.click("#send")
        seen = []
        for until in (20, 20 + part, tokens - 80 - part, tokens - 80):
            page.wait_for_function(
                "n => document.querySelector('#chat').textContent.includes('w' + n)",
                arg=until,
                polling=100,
                timeout=300_000,
            )
            words = "(document.querySelector('#live').textContent.match(/w\\d+/g) || []).length"
            seen.append(page.evaluate(f"[changes, {words}]"))
        expect(page.locator("#stop")).to_be_disabled()
    expect(page.locator("#history")).to_contain_text(f"w{tokens - 1}")
    first, last = ((end[0] - start[0]) / (end[1] - start[1]) for start, end in (seen[:2], seen[2:]))
    return first, last


def test_the_end_of_an_answer_costs_what_its_beginning_costs(page: Any, site: Site) -> None:
    first, last = stream_and_count(page, site, tokens=1500, part=300)
    assert 0 < last < 1.5 * first + 1


@pytest.mark.slow
def test_the_last_of_5000_tokens_cost_what_the_first_cost(page: Any, site: Site) -> None:
    first, last = stream_and_count(page, site, tokens=5000, part=500)
    assert 0 < last < 1.2 * first + 1


def test_the_page_can_be_used_meanwhile(page: Any, site: Site) -> None:
    with answering(site.workspace, PacedAnswer(100_000, at_speed(100))):
        page.fill("#question textarea", "What is in it?")
        page.click("#send")
        page.wait_for_function(
            "document.querySelector('#chat').scrollHeight > 2 * innerHeight", timeout=180_000
        )
        # Who reads further up stays there.
        page.hover("#chat")
        page.mouse.wheel(0, -600)
        page.wait_for_timeout(300)
        place = page.evaluate("document.querySelector('#chat').scrollTop")
        text = "The next question, written while the answer still comes."
        page.click("#question textarea")
        page.keyboard.type(text, delay=20)
        expect(page.locator("#question textarea")).to_be_focused()
        assert page.input_value("#question textarea") == text
        assert page.evaluate("document.querySelector('#chat').scrollTop") == place
        page.click("#stop")
        expect(page.locator("#stop")).to_be_disabled(timeout=180_000)
