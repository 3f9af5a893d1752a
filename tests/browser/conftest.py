"""The real server with the built-in model in a thread, and a page in headless Chromium."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from app.server.updates.tab_state import tab_state
from app.workspace.settings import Settings
from app.workspace.workspace import Workspace
from mom_core.config import EngineConfig

CHROMIUM = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None
)


@dataclass
class Site:
    url: str
    workspace: Workspace


def pytest_collection_modifyitems(items: list[Any]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.builtin)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="no chromium on PATH"))


@contextmanager
def serving(model: str, config: EngineConfig | None = None) -> Iterator[Site]:
    """The real server with a model in a thread. A browser must be there already: Gradio makes an
    event loop, and never closes it, where none is running."""
    import warnings

    with warnings.catch_warnings():
        # Gradio's own imports warn of things to come.
        warnings.simplefilter("ignore")
        import uvicorn

        from app.server.app import create_app

        def load(source: str, config: Any) -> Any:
            from mom_core import Engine

            return Engine.load(source, config)

        workspace = Workspace(load, model, config)
        closing = threading.Event()
        app = create_app(workspace, closing.is_set)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, ws="none")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    for _ in range(600):
        if server.started and workspace.model.is_ready:
            break
        time.sleep(0.1)
    assert workspace.model.is_ready
    yield Site(f"http://127.0.0.1:{listener.getsockname()[1]}", workspace)
    closing.set()
    server.should_exit = True
    thread.join(10)
    workspace.close()


@pytest.fixture(scope="package")
def site(browser: Any) -> Iterator[Site]:
    with serving("smollm2-135m") as site:
        yield site


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    from playwright.sync_api import expect, sync_playwright

    # A slow machine is not a fault; where time is the promise, the tests say how much.
    expect.set_options(timeout=180_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-quic",
                "--disable-background-networking",
                "--no-first-run",
            ],
        )
        yield browser
        browser.close()


def is_fault(message: Any) -> bool:
    """Errors on the console, but for the browser's own note of a request refused with a reason."""
    return message.type == "error" and "status of 400" not in message.text


def empty(workspace: Workspace) -> None:
    """No run, no document, one empty chat, settings as they begin."""
    for chat in workspace.conversations:
        workspace.delete(chat.id)
    while workspace.is_busy:
        time.sleep(0.05)
    for row in tab_state(workspace)["documents"]["rows"]:  # type: ignore[index]
        workspace.documents.remove(row["id"])
    workspace.configure(
        **{field.name: getattr(Settings(), field.name) for field in fields(Settings)}
    )


@pytest.fixture
def page(browser: Any, site: Site) -> Iterator[Any]:
    """A fresh tab on an empty workspace; fails on console errors and on requests to elsewhere."""
    empty(site.workspace)
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda m: faults.append(m.text) if is_fault(m) else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    context.on(
        "request",
        lambda r: None if r.url.startswith((site.url, "data:", "blob:")) else faults.append(r.url),
    )
    open_page(page, site)
    yield page
    context.close()
    assert faults == []


def open_page(page: Any, site: Site) -> None:
    page.goto(site.url)
    page.wait_for_selector("#send")
    page.wait_for_selector("#gauge-host .now dd:not(:empty)")


def put_answer(site: Site, answer: str) -> None:
    """An answer about the one document that is there, as if a model had given it."""
    from app.citations import find_citations
    from app.prompt.prompt import Turn
    from app.workspace.conversations import Answered

    (document,) = site.workspace.documents.chosen()
    citations = tuple(find_citations(answer, [document.document]))
    chat = site.workspace.conversations.newest
    site.workspace.conversations.append(
        chat.id, Answered(Turn("?", (1,), answer), "", "", citations)
    )
    site.workspace.changed()
