"""Which port the page gets, and what stands before all else in it."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from app.server.asgi import Message
from app.server.early_script import EarlyScript
from app.server.serve import bind
from mom_core.errors import InvalidSetting


def test_a_taken_port_gives_the_next_free_one() -> None:
    with bind(None) as first:
        port = first.getsockname()[1]
        # Nobody has to be served yet for the port to be taken.
        with bind(port) as second:
            assert second.getsockname()[1] > port
            assert second.getsockname()[0] == "127.0.0.1"


def test_a_port_that_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: tuple[str, int]) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(InvalidSetting, match="Port 80 cannot be used: Permission denied"):
        bind(80)


@pytest.mark.parametrize(("path", "is_page"), [("/", True), ("/config", False)])
def test_a_script_of_ours_comes_before_all_others(path: str, is_page: bool) -> None:
    pieces = [b"<html><head><script src='theirs", b".js'></script></head></html>"]
    whole = b"".join(pieces)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/html"), (b"content-length", b"%d" % len(whole))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": pieces[0], "more_body": True})
        await send({"type": "http.response.body", "body": pieces[1]})

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    scope = {"type": "http", "method": "GET", "path": path}
    asyncio.run(EarlyScript(app, "static/ours.js")(scope, receive, send))
    body = b"".join(message.get("body", b"") for message in sent)
    ours = b'<head><script src="static/ours.js"></script><script'
    assert body == (whole.replace(b"<head><script", ours) if is_page else whole)
    assert dict(sent[0]["headers"])[b"content-length"] == b"%d" % len(body)
    assert sent[0]["status"] == 200
