"""Serves the page on this machine's loopback address until it is interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from typing import Any

import click

from app.documents import DEFAULT_LIMITS, DiskCache, Limits
from app.workspace import Workspace
from mom_core.config import EngineConfig
from mom_core.errors import InvalidSetting

ADDRESS = "127.0.0.1"
DEFAULT_PORT = 7860
_PORTS_TRIED = 50


def create_app(workspace: Workspace, is_closing: Any = lambda: False) -> Any:
    """The whole server as an ASGI app: guard, our routes, Gradio's page.

    Args:
        workspace: what the page shows.
        is_closing: tells the streams to end.
    """
    # Before Gradio is imported: else it asks the outside world for its newest version.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import fastapi
    import gradio

    from app.guard import Guard
    from app.routes import routes
    from app.ui.build import build, mount_options

    app = fastapi.FastAPI(openapi_url=None)
    app.include_router(routes(workspace, is_closing))
    demo = build(workspace)
    demo.queue()
    # Gradio's queue looks for work a thousand times a second; twenty are enough here.
    demo._queue.sleep_when_free = 0.05
    app = gradio.mount_gradio_app(app, demo, path="/", **mount_options())
    return Guard(app)


def bind(port: int | None) -> socket.socket:
    """A socket on the port asked for (7860 if None), or on the next free one if it is taken.

    Raises:
        InvalidSetting: none can be had.
    """
    first = DEFAULT_PORT if port is None else port
    last = min(first + _PORTS_TRIED, 65535)
    for candidate in range(first, last + 1):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((ADDRESS, candidate))
            # Only listening takes the port for good: two starts at once could both bind it.
            listener.listen()
        except OSError as fault:
            listener.close()
            if fault.errno == errno.EADDRINUSE:
                continue
            raise InvalidSetting(
                f"Port {candidate} cannot be used: {fault.strerror}. Give another one with --port."
            ) from fault
        return listener
    raise InvalidSetting(f"Ports {first} to {last} are all taken; name a free one with --port.")


def serve(
    *,
    port: int | None,
    model: str,
    config: EngineConfig,
    limits: Limits = DEFAULT_LIMITS,
    cache: DiskCache | None = None,
) -> None:
    """Serves the page; returns after SIGINT or SIGTERM.

    Args:
        port: None takes the first free one from 7860.
        model: source of the model, as for `Engine.load`.
        config: what the page's settings are put into.
        limits: of reading documents.
        cache: of their texts and tokens between runs; None keeps nothing.

    Raises:
        InvalidSetting: the port cannot be had.
    """
    listener = bind(port)
    actual = listener.getsockname()[1]
    if port is not None and actual != port:
        click.echo(f"Port {port} is taken; using {actual}.", err=True)

    def load_engine(source: str, config: EngineConfig) -> Any:
        from mom_core.engine import Engine

        return Engine.load(source, config)

    workspace = Workspace(load_engine, model, config, cache, limits)
    try:
        asyncio.run(_serve(listener, workspace, f"http://{ADDRESS}:{actual}"))
    finally:
        workspace.close()


async def _serve(listener: socket.socket, workspace: Workspace, url: str) -> None:
    import uvicorn

    server: uvicorn.Server | None = None

    def is_closing() -> bool:
        return server is not None and server.should_exit

    app = create_app(workspace, is_closing)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.02)
    if server.started:
        click.echo(f"mom-chat is at {url} (Ctrl-C ends it)")
    with contextlib.suppress(KeyboardInterrupt):
        await serving
