"""Puts a script of ours before all of Gradio's into the page.

What Gradio takes as `head` is added by its own script, when the page is half built: too late for
what has to be there before.
"""

from __future__ import annotations

from app.server.asgi import App, Message, Receive, Scope, Send

_HEAD = b"<head>"


class EarlyScript:
    """Adds a script to the head of the page at `/`.

    Args:
        app: that answers with the page.
        address: of the script.
    """

    def __init__(self, app: App, address: str) -> None:
        self._app = app
        self._tag = f'{_HEAD.decode()}<script src="{address}"></script>'.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        start: Message = {}
        body = bytearray()

        async def gather(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            page = bytes(body).replace(_HEAD, self._tag, 1)
            headers = [item for item in start["headers"] if item[0].lower() != b"content-length"]
            start["headers"] = [*headers, (b"content-length", str(len(page)).encode())]
            await send(start)
            await send({"type": "http.response.body", "body": page})

        await self._app(scope, receive, gather)
