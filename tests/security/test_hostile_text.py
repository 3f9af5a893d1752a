"""A real browser, a document and an answer that try everything, and the page for the password."""

from __future__ import annotations

import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from app.server.access import Access
from tests.security.conftest import Server

CHROMIUM = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
]
EVIL = (
    '<img src="http://192.0.2.1/a.png" onerror="window.bad=1"><script>window.bad=1</script>'
    "<svg onload='window.bad=1'></svg><iframe src='http://192.0.2.1/'></iframe>"
    "<style>body{background:url(http://192.0.2.1/b.png)}</style>"
    "<link rel=stylesheet href=//192.0.2.1>"
)
MARKDOWN = (
    f"{EVIL}\n\n![picture](http://192.0.2.1/c.png) [click](javascript:window.bad=1) "
    "[data](data:text/html,<script>window.bad=1</script>)\n\n"
    "`<b>code</b>` $$\\href{javascript:1}{x}$$"
)


class Site:
    """A server on a port."""

    def __init__(self, server: Server) -> None:
        import uvicorn

        server.is_closing = False
        self._behind = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            server.app, log_level="error", timeout_graceful_shutdown=1, ws="none"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}, daemon=True
        )
        self._thread.start()
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        while not self._server.started:
            time.sleep(0.02)

    def close(self) -> None:
        self._behind.is_closing = True
        self._server.should_exit = True
        self._thread.join(10)
        self._listener.close()


@pytest.fixture
def tab() -> Iterator[Any]:
    """A fresh tab that writes down what it asked for elsewhere."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context().new_page()
        page.elsewhere = []
        page.on(
            "request",
            lambda r: (
                None
                if r.url.startswith(("http://127.0.0.1:", "data:", "blob:"))
                else page.elsewhere.append(r.url)
            ),
        )
        yield page
        browser.close()


def test_hostile_names_texts_and_answers_stay_text(workspace: Any, tab: Any) -> None:
    from app.citations import find_citations
    from app.prompt.prompt import Turn
    from app.workspace.conversations import Answered

    server = Server(workspace)
    batch = uuid.uuid4().hex
    name = EVIL.replace("/", "\u2215")[:200] + ".txt"
    server.ask("PUT", f"/uploads/{batch}", params={"path": name}, content=MARKDOWN.encode())
    server.ask("POST", f"/uploads/{batch}")
    chat = workspace.new_conversation()
    answer = f'{MARKDOWN} "window.bad=1 onload and more words" [p. 1] [{name}]'
    citations = tuple(find_citations(answer, []))
    turn = Turn(EVIL, (1,), answer)
    workspace.conversations.append(chat, Answered(turn, EVIL, EVIL, citations, EVIL))
    site = Site(server)
    try:
        tab.goto(f"http://{site.address}/")
        tab.wait_for_selector("#send")
        for place in ("#documents", "#chat"):
            shown = f"document.querySelector('{place}').innerText.includes('onerror')"
            tab.wait_for_function(shown, timeout=180_000)
        tab.wait_for_timeout(1500)
        assert tab.evaluate("window.bad") is None
        assert (
            tab.evaluate("[...document.links].filter(a => a.protocol == 'javascript:').length") == 0
        )
        found = "[...document.querySelectorAll('img,iframe,link,script')].map(e => e.src || e.href)"
        assert not [url for url in tab.evaluate(found) if "192.0.2.1" in str(url)]
        assert tab.elsewhere == []
    finally:
        tab.goto("about:blank")
        site.close()
        server.ask("DELETE", f"/documents/{batch}")
        workspace.delete(chat)


def test_the_page_for_the_password_in_a_browser(workspace: Any, tab: Any) -> None:
    site = Site(Server(workspace, Access(password="correct horse")))
    try:
        tab.goto(f"http://{site.address}/")
        tab.fill("#password", "wrong")
        tab.click("button")
        tab.wait_for_selector("text=This is not the password. Try again.")
        assert tab.evaluate("document.cookie") == ""
        tab.fill("#password", "correct horse")
        tab.press("#password", "Enter")
        tab.wait_for_selector("#send")
        # Out of reach of scripts.
        assert tab.evaluate("document.cookie") == ""
        tab.reload()
        tab.wait_for_selector("#send")
    finally:
        tab.goto("about:blank")
        site.close()


def test_the_printed_address_opens_and_loses_its_token(workspace: Any, tab: Any) -> None:
    access = Access(token="a-token-of-this-start")
    site = Site(Server(workspace, access))
    try:
        tab.goto(f"http://{site.address}/?token={access.token}")
        tab.wait_for_selector("#send")
        assert "token" not in tab.url
        other = tab.context.browser.new_context().new_page()
        answer = other.goto(f"http://{site.address}/")
        assert answer.status == 401
    finally:
        tab.goto("about:blank")
        site.close()
