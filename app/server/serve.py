"""Serves the page until it is interrupted: on this machine alone, unless told otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from pathlib import Path
from typing import Any

import click

from app.documents import DEFAULT_LIMITS, DiskCache, Limits
from app.interrupts import sigterm_is_an_exception
from app.library.library import Library, library_home
from app.server.access import ADDRESS, Access
from app.server.app import create_app
from app.workspace.workspace import Workspace
from mom_core.config import EngineConfig
from mom_core.errors import InvalidSetting

DEFAULT_PORT = 7860
_PORTS_TRIED = 50


def bind(port: int | None, host: str = ADDRESS) -> socket.socket:
    """A socket on the port asked for (7860 if None), or on the next free one if it is taken.

    Raises:
        InvalidSetting: none can be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    except OSError as fault:
        raise InvalidSetting(
            f"There is no address {host!r} on this machine ({fault.strerror}). Give --host an "
            "address of it, such as 127.0.0.1 or 0.0.0.0."
        ) from fault
    first = DEFAULT_PORT if port is None else port
    last = min(first + _PORTS_TRIED, 65535)
    for candidate in range(first, last + 1):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address[0], candidate))
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
    access: Access | None = None,
    home: Path | None = None,
    saves: bool = True,
) -> None:
    """Serves the page; returns after SIGINT, and leaves by `SystemExit` after SIGTERM.

    Either way what is being read is kept, and uploads are deleted.

    Args:
        port: None takes the first free one from 7860.
        model: source of the model, as for `Engine.load`.
        config: what the page's settings are put into.
        limits: of reading documents.
        cache: of their texts and tokens between runs; None keeps nothing.
        access: from where it can be reached; by default from this machine, by whoever uses it.
        home: where chats and prepared documents are kept; None is `MOM_HOME` or the system's place.
        saves: whether they are kept at all.

    Raises:
        InvalidSetting: the port or address cannot be had.
    """
    access = access or Access()

    def load_engine(source: str, config: EngineConfig) -> Any:
        from mom_core.engine import Engine

        return Engine.load(source, config)

    with bind(port, access.host) as listener:
        actual = listener.getsockname()[1]
        if port is not None and actual != port:
            click.echo(f"Port {port} is taken; using {actual}.", err=True)
        if not access.is_local:
            click.echo(click.style(_warning(access, actual), fg="red", bold=True), err=True)
        chats_folder, library = _kept(home) if saves else (None, None)
        workspace = Workspace(load_engine, model, config, cache, limits, chats_folder, library)
        try:
            with sigterm_is_an_exception():
                asyncio.run(_serve(listener, workspace, access, actual))
        finally:
            workspace.close()


def _kept(home: Path | None) -> tuple[Path | None, Library | None]:
    """Where chats are kept, and the library; without a place for them the page works as well."""
    try:
        return library_home(home) / "chats", Library(home)
    except InvalidSetting as fault:
        click.echo(f"Note: {fault}", err=True)
        return None, None


def _warning(access: Access, port: int) -> str:
    return (
        f"WARNING: other machines can reach this program at {access.host}, port {port}. Whoever "
        "has the password can read your documents and any file that you may read, and what is "
        "sent is not encrypted. Use it in a network that you trust, or through ssh."
    )


async def _serve(listener: socket.socket, workspace: Workspace, access: Access, port: int) -> None:
    import uvicorn

    server: uvicorn.Server | None = None

    def is_closing() -> bool:
        return server is not None and server.should_exit

    app = create_app(workspace, is_closing, access)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.02)
    if server.started:
        click.echo(f"mom-chat is at {access.url(port)} (Ctrl-C ends it)")
    with contextlib.suppress(KeyboardInterrupt):
        await serving
