"""Serves the page until it is interrupted: on this machine alone, unless told otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from app.documents import DEFAULT_LIMITS, DiskCache, Limits
from app.interrupts import sigterm_is_an_exception
from app.library.library import Library, library_home
from app.server.admission import PASSWORD_CHARACTERS_MIN
from app.server.guard import LOOPBACK_NAMES
from app.workspace.workspace import Workspace
from mom_core.config import EngineConfig
from mom_core.errors import InvalidSetting

ADDRESS = "127.0.0.1"
DEFAULT_PORT = 7860
_PORTS_TRIED = 50
_EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """From where the page can be reached, and by whom.

    Args:
        host: address or name to listen at.
        token: without it nobody gets in; None asks for none.
        password: likewise; None asks for none.

    Raises:
        InvalidSetting: other machines could reach it without a password, or it is too short.
    """

    host: str = ADDRESS
    token: str | None = None
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.is_local and self.password is None:
            raise InvalidSetting(
                f"--host {self.host} lets other machines in, so a password is needed: give "
                "--password-file FILE, set MOM_PASSWORD, or start mom in a terminal, which asks."
            )
        if self.password is not None and len(self.password) < PASSWORD_CHARACTERS_MIN:
            raise InvalidSetting(
                f"The password has {len(self.password)} characters; it must have at least "
                f"{PASSWORD_CHARACTERS_MIN}."
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    @property
    def host_names(self) -> frozenset[str]:
        """Names under which the page may be opened."""
        if self.is_local:
            return LOOPBACK_NAMES | {self.host}
        own = socket.gethostname()
        return LOOPBACK_NAMES | {self.host, own, f"{own}.local", socket.getfqdn()}

    def url(self, port: int) -> str:
        """What a person opens."""
        name = socket.gethostname() if self.host in _EVERYWHERE else self.host
        shown = f"[{name}]" if ":" in name else name
        token = "" if self.token is None else f"/?token={self.token}"
        return f"http://{shown}:{port}{token}"


def is_loopback(host: str) -> bool:
    """Whether an address or name leads to this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def create_app(
    workspace: Workspace,
    is_closing: Any = lambda: False,
    access: Access | None = None,
) -> Any:
    """The whole server as an ASGI app: guard, admission, limits, our routes, Gradio's page.

    Args:
        workspace: what the page shows.
        is_closing: tells the streams to end.
        access: from where it can be reached, and by whom.
    """
    import fastapi
    import gradio

    from app.server.admission import Admission
    from app.server.asgi import App
    from app.server.early_script import EarlyScript
    from app.server.guard import Guard
    from app.server.request_limits import RequestLimits
    from app.server.routes.router import routes
    from app.ui.build import build, mount_options

    app = fastapi.FastAPI(openapi_url=None)
    app.include_router(routes(workspace, is_closing))
    demo = build(workspace)
    demo.queue()
    # Gradio's queue looks for work a thousand times a second; twenty are enough here.
    demo._queue.sleep_when_free = 0.05
    page: App = gradio.mount_gradio_app(app, demo, path="/", **mount_options())
    page = RequestLimits(EarlyScript(page, "static/frames.js"))
    access = access or Access()
    if access.token is not None or access.password is not None:
        page = Admission(page, token=access.token, password=access.password)
    return Guard(page, access.host_names, any_address=not access.is_local)


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
