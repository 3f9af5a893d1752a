"""The whole server without a model, asked without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.server.access import Access
from mom_core.errors import InvalidSetting

HERE = "127.0.0.1:7860"


def no_model(*_: Any) -> Any:
    """In the place of an engine."""
    raise InvalidSetting("There is no model in this test.")


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """In a thread of its own: the driver of the browser keeps a loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


class Server:
    """Everything behind the socket."""

    def __init__(self, workspace: Any, access: Access | None = None) -> None:
        import warnings

        # Ends the streams of updates at once, unless a browser wants them.
        self.is_closing = True
        with warnings.catch_warnings():
            # Gradio's own imports warn of things to come.
            warnings.simplefilter("ignore")
            from app.server.app import create_app

            async def build() -> Any:
                return create_app(workspace, lambda: self.is_closing, access)

            # As the program does it: Gradio makes a loop of its own where none runs.
            self.app = run(build())
        self.workspace = workspace

    def ask(self, method: str, path: str, **others: Any) -> Any:
        """One request; by default from our own page."""
        import httpx

        headers = {"host": HERE, **others.pop("headers", {})}
        others.setdefault("follow_redirects", False)

        async def send() -> Any:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{HERE}") as http:
                return await http.request(method, path, headers=headers, **others)

        return run(send())


@pytest.fixture(scope="package")
def workspace() -> Iterator[Any]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from app.workspace.workspace import Workspace

        workspace = Workspace(no_model, "smollm2-135m")
    yield workspace
    workspace.close()


@pytest.fixture(scope="package")
def server(workspace: Any) -> Server:
    return Server(workspace)


def all_routes(app: Any) -> set[tuple[str, str]]:
    """Method and path of every route, ours and Gradio's, its parameters filled in."""
    import re

    found: set[tuple[str, str]] = set()

    def walk(routes: Any, prefix: str) -> None:
        for route in routes:
            path = prefix + str(getattr(route, "path", ""))
            inner = getattr(route, "app", None)
            router = getattr(route, "original_router", None) or getattr(route, "router", None)
            if router is not None:
                walk(router.routes, path)
            elif hasattr(inner, "routes"):
                walk(inner.routes, path)
            elif getattr(route, "methods", None):
                filled = re.sub(r"\{[^}]*\}", "x", path)
                found.update((method, filled) for method in route.methods)

    while not hasattr(app, "routes"):
        app = app._app
    walk(app.routes, "")
    return found


ROOT = Path(__file__).parents[2]
