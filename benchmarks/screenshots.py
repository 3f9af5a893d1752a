"""Pictures of the page in each of its states: `python -m benchmarks.screenshots`.

They are made with the built-in model and the samples of `assets/`, by the clicks of a person, in
headless Chromium, and written to `assets/screenshots/`.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.server.asgi import App
from app.workspace.workspace import Workspace

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "assets" / "screenshots"
SAMPLES = ROOT / "assets" / "samples"
_DESKTOP: Any = {"width": 1440, "height": 900}
_PHONE: Any = {"width": 390, "height": 844}
# Others may use the machine.
_WAIT_MILLISECONDS = 300_000
_QUESTION = "Who built the observatory? Quote the sentence and name the page."


@contextmanager
def served(wrap: Callable[[App], App] = lambda app: app) -> Iterator[tuple[str, Workspace]]:
    """The page on a free port, its model loaded.

    Args:
        wrap: what lies around the whole server.
    """
    import socket

    import uvicorn

    from app.server.app import create_app
    from mom_core import Engine

    workspace = Workspace(Engine.load, "smollm2-135m")
    closing = threading.Event()
    app = wrap(create_app(workspace, closing.is_set))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not (server.started and workspace.model.is_ready):
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", workspace
    finally:
        closing.set()
        server.should_exit = True
        thread.join(10)
        workspace.close()


def main() -> None:
    """All pictures."""
    from playwright.sync_api import sync_playwright

    FOLDER.mkdir(exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with (
        tempfile.TemporaryDirectory() as folder,
        served() as (url, workspace),
        sync_playwright() as playwright,
    ):
        long = Path(folder) / "long.md"
        long.write_text((SAMPLES / "beekeeping-guide.md").read_text() * 5)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def page(viewport: Any, scheme: Any = "light") -> Any:
            context = browser.new_context(
                viewport=viewport, color_scheme=scheme, device_scale_factor=1
            )
            context.set_default_timeout(_WAIT_MILLISECONDS)
            opened = context.new_page()
            opened.goto(url)
            opened.wait_for_selector("#gauge-host .now dd:not(:empty)", state="attached")
            return opened

        _states(page, workspace, long)
        browser.close()


def _states(page: Callable[..., Any], workspace: Workspace, long: Path) -> None:
    desk = page(_DESKTOP)
    _take(desk, "empty")
    desk.click("#live .samples button >> nth=1")
    _counted(desk, 1)
    desk.set_input_files("#drop input[type=file]", long)
    _counted(desk, 2)
    _take(desk, "forecast")
    _ask(desk, "When is honey ripe?")
    desk.wait_for_function(
        "/ (1[5-9]|[2-9][0-9])%/.test(document.querySelector('#progress .line').innerText)"
    )
    _take(desk, "reading", settle=0.1)
    desk.click("#pause")
    _take(desk, "paused")
    desk.click("#stop")
    _idle(desk)
    _take(desk, "stopped")
    workspace.documents.remove(workspace.documents.cells()[1][0])
    _begin_chat(desk)
    _ask(desk, "Summarise the most important points.")
    desk.wait_for_function("document.querySelector('#live .answer').innerText.length > 60")
    _take(desk, "answering", settle=0.1)
    desk.click("#stop")
    _idle(desk)
    _begin_chat(desk)
    workspace.configure(max_new_tokens=120)
    _ask(desk, _QUESTION)
    _idle(desk)
    _take(desk, "answered")
    key = workspace.documents.cells()[0][0]
    desk.evaluate(
        "([id]) => import('./static/viewer.js').then((v) => "
        "v.view(id, 0, 'Hallgrim Ridge Observatory'))",
        [key],
    )
    desk.wait_for_selector("#viewer .places mark", state="attached")
    _take(desk, "viewer")
    desk.keyboard.press("Escape")
    desk.click("#aside-tabs [data-aside=settings]")
    _take(desk, "settings")
    for scheme, viewport, name in (
        ("dark", _DESKTOP, "dark"),
        ("light", _PHONE, "phone"),
        ("dark", _PHONE, "phone-dark"),
    ):
        other = page(viewport, scheme)
        _take(other, name)
        if viewport is _PHONE and scheme == "light":
            for tab in ("documents", "memory"):
                other.click(f"#tabs [data-tab={tab}]")
                _take(other, f"phone-{tab}")
    desk.set_input_files("#drop input[type=file]", [long, *[long] * 1])
    _counted(desk, 3)
    desk.click("#aside-tabs [data-aside=memory]")
    _take(desk, "too-much")


def _take(page: Any, name: str, settle: float = 1.0) -> None:
    # A click brings its place into sight; the picture shows the page as it opens.
    page.evaluate("document.querySelectorAll('#side, #aside').forEach((one) => one.scrollTo(0, 0))")
    page.wait_for_timeout(1000 * settle)
    page.screenshot(path=FOLDER / f"{name}.png")
    print(f"{name}.png")


def _counted(page: Any, number: int) -> None:
    page.wait_for_function(
        "(n) => { const all = [...document.querySelectorAll('#documents .facts')];"
        " return all.length === n && all.every((one) => one.innerText.includes('context')) }",
        arg=number,
    )


def _ask(page: Any, question: str) -> None:
    page.fill("#question textarea", question)
    page.keyboard.press("Enter")
    page.wait_for_function("document.documentElement.dataset.state !== 'idle'")


def _idle(page: Any) -> None:
    page.wait_for_function("document.documentElement.dataset.state === 'idle'")


def _begin_chat(page: Any) -> None:
    """A question that is asked before the new chat is there would go into the old one."""
    with page.expect_response(lambda answer: answer.url.endswith("/chats")) as begun:
        page.click("#new")
    page.wait_for_function(
        "(id) => document.documentElement.dataset.chat === id", arg=begun.value.json()["id"]
    )


if __name__ == "__main__":
    main()
