"""What a request may ask for and how much it may bring, before any route sees it.

Gradio has routes that our page does not use: for files, uploads, other servers. They are closed,
whatever may be wrong with them tomorrow. And no route but an upload takes a large body.
"""

from __future__ import annotations

import re

from app.server.asgi import App, Message, Receive, Scope, Send, headers_of, refuse

BODY_BYTES_MAX = 8 * 1024**2
_UPLOADS = re.compile(r"/uploads/[^/]+")
_GRADIO_PREFIX = "/gradio_api/"
# What Gradio's own script calls to send a click, hear of its result, and know that we live.
_GRADIO_NEEDED = re.compile(
    r"/gradio_api/(queue/(join|data)|run/predict|heartbeat/[^/]+|info|startup-events|app_id"
    r"|cancel|reset)/?"
)
_GRADIO_CLOSED = re.compile(
    r"/(monitoring|login|logout|token|docs|redoc|openapi\.json|file|upload|proxy|stream|dev|mcp)"
    r"([/=].*)?"
)


class RequestLimits:
    """Closes routes and refuses large bodies.

    Args:
        app: everything behind.
        body_bytes_max: of all requests but uploads, which count for themselves.
    """

    def __init__(self, app: App, body_bytes_max: int = BODY_BYTES_MAX) -> None:
        self._app = app
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket" or is_closed(scope["path"]):
            await refuse(scope, receive, send, 404, "there is nothing at this address.")
            return
        if scope["method"] == "PUT" and _UPLOADS.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        messages = await self._body(scope, receive)
        if messages is None:
            limit_mb = self._body_bytes_max // 1024**2
            sentence = f"the request has more than {limit_mb} MB. Drop large texts as files."
            await refuse(scope, receive, send, 413, sentence)
            return
        waiting = iter(messages)

        async def replay() -> Message:
            return next(waiting, None) or await receive()

        await self._app(scope, replay, send)

    async def _body(self, scope: Scope, receive: Receive) -> list[Message] | None:
        """What had to be read to know the size of the body; None if it is too large."""
        headers = headers_of(scope)
        lengths = headers.get("content-length", [])
        if lengths or "transfer-encoding" not in headers:
            # The server takes no more bytes than were announced.
            announced = [int(length) for length in lengths if length.isdecimal()]
            return [] if max(announced, default=0) <= self._body_bytes_max else None
        messages: list[Message] = []
        size_bytes = 0
        while True:
            message = await receive()
            messages.append(message)
            size_bytes += len(message.get("body", b""))
            if size_bytes > self._body_bytes_max:
                return None
            if not message.get("more_body", False):
                return messages


def is_closed(path: str) -> bool:
    """Whether a path belongs to Gradio and not to what the page needs of it."""
    if path.startswith(_GRADIO_PREFIX):
        return _GRADIO_NEEDED.fullmatch(path) is None
    return _GRADIO_CLOSED.fullmatch(path) is not None
