"""What the page costs while a model is at work and while nothing is: `python -m benchmarks.page`.

No model computes: the run is `paced_answer`, so that what is measured is the page. Server and page
are the real ones, the page in headless Chromium. Prints a table; `--save` appends a line to
`benchmarks/results/page.jsonl`. To be run on a machine that does nothing else.

- idle, reading, answering: CPU of the server's process and of the page's main thread in percent of
  a core, and bytes a second of the page's stream. The server's is what an open page adds: the same
  is measured with no page open and taken off.
- answer: of 5,000 tokens at 250 a second, the first 500 and the last: bytes a token on the stream,
  milliseconds of the page's main thread a token. The same in a chat that has 40 messages already.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from app.prompt.prompt import Turn
from app.server.asgi import App, Message, Receive, Scope, Send
from app.workspace.conversations import Answered
from app.workspace.workspace import Workspace
from benchmarks.paced_answer import PacedAnswer, answering, at_speed
from benchmarks.record import append, describe_run
from benchmarks.screenshots import SAMPLES, served

SECONDS = 15.0
_ANSWER_TOKENS = 5000
_PART_TOKENS = 500
_AFTER_SECONDS = 3.0


class StreamBytes:
    """Counts the bytes of `/events` on their way out."""

    def __init__(self) -> None:
        self.sent = 0

    def around(self, app: App) -> App:
        """The app, counted."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            async def count(message: Message) -> None:
                if scope.get("path") == "/events":
                    self.sent += len(message.get("body", b""))
                await send(message)

            await app(scope, receive, count)

        return counted


class Tab:
    """An open page, with the work of its main thread."""

    def __init__(self, browser: Any, url: str) -> None:
        self._context = browser.new_context(viewport={"width": 1440, "height": 900})
        self.page = self._context.new_page()
        self.page.goto(url)
        self.page.wait_for_selector("#gauge-host .now dd:not(:empty)", state="attached")
        self._session = self._context.new_cdp_session(self.page)
        self._session.send("Performance.enable")

    def work_seconds(self) -> float:
        """Of its main thread since it was opened."""
        metrics = self._session.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))

    def close(self) -> None:
        """Ends it."""
        self._context.close()


@contextmanager
def running(workspace: Workspace, answer: PacedAnswer | None) -> Iterator[None]:
    """A run goes on meanwhile; nothing does if there is no answer."""
    if answer is None:
        yield
        return
    with answering(workspace, answer):
        workspace.ask("What is in it?")
        try:
            yield
        finally:
            workspace.stop()
            while workspace.is_busy:
                time.sleep(0.01)


def cost(
    workspace: Workspace,
    stream: StreamBytes,
    answer: PacedAnswer | None,
    tab: Tab | None,
    seconds: float,
) -> dict[str, float]:
    """CPU of server and page in percent of a core, and bytes a second, while a run goes on."""
    with running(workspace, answer):
        time.sleep(_AFTER_SECONDS)
        sent, work = stream.sent, tab.work_seconds() if tab else 0.0
        cpu, began = time.process_time(), time.monotonic()
        time.sleep(seconds)
        elapsed = time.monotonic() - began
        return {
            "server_percent": 100 * (time.process_time() - cpu) / elapsed,
            "page_percent": 100 * ((tab.work_seconds() if tab else 0.0) - work) / elapsed,
            "bytes_per_second": (stream.sent - sent) / elapsed,
        }


def live_costs(
    browser: Any, url: str, workspace: Workspace, stream: StreamBytes, seconds: float
) -> dict[str, dict[str, float]]:
    """What an open page adds while nothing goes on, a prompt is read, and an answer written."""
    runs: dict[str, Callable[[], PacedAnswer | None]] = {
        "idle": lambda: None,
        "reading": lambda: PacedAnswer(1, lambda index: None, 10 * seconds + 60),
        "answering": lambda: PacedAnswer(10**6, at_speed(40)),
    }
    costs = {}
    for name, make in runs.items():
        alone = cost(workspace, stream, make(), None, seconds)
        tab = Tab(browser, url)
        seen = cost(workspace, stream, make(), tab, seconds)
        tab.close()
        added = seen["server_percent"] - alone["server_percent"]
        costs[name] = {**seen, "server_added_percent": added}
        _new_chat(workspace)
    return costs


def answer_costs(
    browser: Any, url: str, workspace: Workspace, stream: StreamBytes, messages: int
) -> dict[str, float]:
    """A long answer at its beginning and at its end.

    Args:
        messages: the conversation before it.
    """
    chat = workspace.conversations.newest.id
    for number in range(messages // 2):
        turn = Turn(f"Question {number}?", (100,) * 300, "Some words of an answer. " * 80)
        answered = Answered(turn, "Wrote 300 tokens.", "", (), workspace.model.name)
        workspace.conversations.append(chat, answered)
    tab = Tab(browser, url)
    marks = []
    answer = PacedAnswer(_ANSWER_TOKENS, at_speed(250))
    with running(workspace, answer):
        # The end itself draws the whole conversation again, once.
        last = _ANSWER_TOKENS - 100
        for until in (50, 50 + _PART_TOKENS, last - _PART_TOKENS, last):
            tab.page.wait_for_function(
                "n => document.querySelector('#chat').textContent.includes('w' + n)",
                arg=until,
                polling=100,
                timeout=180_000,
            )
            marks.append((tab.work_seconds(), stream.sent))
    tab.close()
    _new_chat(workspace)

    def part(begin: int) -> tuple[float, float]:
        work, sent = (b - a for a, b in zip(marks[begin], marks[begin + 1], strict=True))
        return 1000 * work / _PART_TOKENS, sent / _PART_TOKENS

    (first_ms, first_bytes), (last_ms, last_bytes) = part(0), part(2)
    return {
        "first_ms_per_token": first_ms,
        "last_ms_per_token": last_ms,
        "first_bytes_per_token": first_bytes,
        "last_bytes_per_token": last_bytes,
    }


def _new_chat(workspace: Workspace) -> None:
    for chat in list(workspace.conversations):
        workspace.delete(chat.id)


def measure(seconds: float) -> dict[str, dict[str, float]]:
    """All of it, by name."""
    from playwright.sync_api import sync_playwright

    stream = StreamBytes()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with served(stream.around) as (url, workspace), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        _shelve(workspace)
        measured = live_costs(browser, url, workspace, stream, seconds)
        for messages in (0, 40):
            name = f"answer after {messages} messages"
            measured[name] = answer_costs(browser, url, workspace, stream, messages)
        browser.close()
    return measured


def _shelve(workspace: Workspace) -> None:
    from app.workspace.listed_document import Source

    path = SAMPLES / "observatory-handbook.pdf"
    workspace.documents.add("a" * 32, Source(path, path.name))
    while workspace.documents.is_preparing:
        time.sleep(0.05)


def main() -> None:
    """Measures, prints, saves if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--save", action="store_true", help="append to benchmarks/results")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each state")
    options = parser.parse_args()
    measured = measure(options.seconds)
    for name, figures in measured.items():
        print(name)
        for figure, value in figures.items():
            print(f"  {figure:24} {value:10.2f}")
    if options.save:
        packages = ("gradio", "fastapi", "uvicorn")
        print(append("page", {**describe_run(packages), "measured": measured}))


if __name__ == "__main__":
    main()
