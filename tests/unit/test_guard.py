"""The guard: foreign names, pages and sites get nothing, our own page gets everything."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.server.guard import Guard


def ask(headers: dict[str, str], kind: str = "http") -> list[Any]:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": kind,
        "scheme": "http" if kind == "http" else "ws",
        "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
    }
    asyncio.run(Guard(app)(scope, receive, send))
    return sent


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "[::1]:7860", "LOCALHOST"])
def test_own_requests_pass_with_a_policy(host: str) -> None:
    origin = f"http://{host}"
    sent = ask({"host": host, "origin": origin, "sec-fetch-site": "same-origin"})
    assert sent[0]["status"] == 200
    policy = dict(sent[0]["headers"])[b"content-security-policy"].decode()
    assert "img-src 'self' data: blob:" in policy
    assert "http:" not in policy
    assert "*" not in policy


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"host": "evil.com"}, "Host"),
        ({"host": "127.0.0.1.evil.com"}, "Host"),
        ({"host": "127.0.0.1@evil.com"}, "Host"),
        ({}, "Host"),
        ({"host": "127.0.0.1:7860", "origin": "http://evil.com"}, "Origin"),
        ({"host": "127.0.0.1:7860", "origin": "null"}, "Origin"),
        ({"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:9999"}, "Origin"),
        ({"host": "127.0.0.1:7860", "origin": "https://127.0.0.1:7860"}, "Origin"),
        ({"host": "127.0.0.1:7860", "sec-fetch-site": "cross-site"}, "Sec-Fetch-Site"),
        ({"host": "127.0.0.1:7860", "sec-fetch-site": "same-site"}, "Sec-Fetch-Site"),
    ],
)
def test_foreign_requests_are_refused(headers: dict[str, str], named: str) -> None:
    sent = ask(headers)
    assert sent[0]["status"] == 403
    assert f"the request's {named} header" in sent[1]["body"].decode()


def test_foreign_websockets_are_closed() -> None:
    assert ask({"host": "evil.com"}, "websocket") == [{"type": "websocket.close", "code": 1008}]
