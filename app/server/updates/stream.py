"""One stream of updates per tab: what changed, as server-sent events.

A tab has a list of feeds, each with a cursor of its own. A feed is asked at every tick whether it
has something new and answers with small JSON objects, so that a gauge, the text of an answer and
a list of documents share one connection (browsers allow six to a server).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

from app.server.updates.feeds import ForecastFeed, MemoryFeed, TimelineFeed, TokenMapFeed, WorkFeed
from app.server.updates.tab_state import tab_state
from app.workspace.workspace import Workspace

TICK_SECONDS = 0.08

Update = tuple[str, Any]


class Feed(Protocol):
    """One kind of news for one tab."""

    def poll(self) -> Iterator[Update]:
        """What is new since the last call: name of the event and its data, in order."""
        ...


class StateFeed:
    """What of the workspace's state changed, and the new text of the answer before it."""

    def __init__(self, workspace: Workspace, chat_id: str) -> None:
        self._workspace = workspace
        self._chat_id = chat_id
        self._version = -1
        self._run_id = ""
        self._sent = 0
        self._shown: dict[str, Any] = {}

    def poll(self) -> Iterator[Update]:
        """`text` with what was appended, then `state` with what of it is new."""
        self._workspace.runs.watch(self._chat_id)
        changed = self._workspace.version
        if changed == self._version:
            return
        self._version = changed
        # The text first: whoever sees a run end has all of its answer.
        run = self._workspace.run(self._chat_id)
        state = tab_state(self._workspace, self._chat_id)
        if run.run_id != self._run_id:
            self._run_id, self._sent = run.run_id, 0
            yield "text", {"run": run.run_id, "start": 0, "text": ""}
        if len(run.text) > self._sent:
            yield "text", {"run": run.run_id, "start": self._sent, "text": run.text[self._sent :]}
            self._sent = len(run.text)
        news = changes(self._shown, state)
        self._shown = state
        if news:
            yield "state", news


def changes(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What a tab needs in order to make of one state the next.

    Args:
        before: the state it has; empty at first.
        now: the next one, with the same keys in each of its objects.

    Returns:
        Values that are new; of an object only those in it, of a list all.
    """
    news: dict[str, Any] = {}
    for key, value in now.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            value = {name: part for name, part in value.items() if old.get(name) != part}
            if value:
                news[key] = value
        elif key not in before or value != old:
            news[key] = value
    return news


def feeds(workspace: Workspace, chat_id: str) -> list[Feed]:
    """Those of a tab that shows one conversation."""
    return [
        StateFeed(workspace, chat_id),
        MemoryFeed(workspace),
        TimelineFeed(workspace),
        ForecastFeed(workspace, chat_id),
        WorkFeed(workspace, chat_id),
        TokenMapFeed(workspace, chat_id),
    ]


async def updates(
    workspace: Workspace, chat_id: str, is_closing: Callable[[], bool]
) -> AsyncIterator[str]:
    """Server-sent events of all feeds, at most 12.5 times a second, until the server closes."""
    all_feeds = feeds(workspace, chat_id)
    while not is_closing():
        for feed in all_feeds:
            for kind, data in feed.poll():
                yield f"event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
        await asyncio.sleep(TICK_SECONDS)
