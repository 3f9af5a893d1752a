"""The lock on the door: no other web page, and no other name, reaches this server.

A local server is open to every page in the person's browser: a foreign page can post forms to it,
and a foreign name can be made to point at it (DNS rebinding). Gradio alone accepts both. This is
the outermost layer, pure ASGI so that streams pass through untouched.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from app.server.asgi import App, Message, Receive, Scope, Send, headers_of, refuse

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
# Gradio needs inline scripts and `eval` for its HTML component; nothing may come from elsewhere.
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "frame-src 'none'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
_HEADERS = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    # With "no-referrer" browsers would say "Origin: null" of the form for the password.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Guard:
    """Refuses foreign requests, and tells the browser to load nothing from elsewhere.

    Args:
        app: everything behind the guard.
        host_names: names under which the server may be addressed.
        any_address: it may be addressed by any number: a name could be made to point here by
            anyone, a number leads where it says.
    """

    def __init__(
        self,
        app: App,
        host_names: Iterable[str] = LOOPBACK_NAMES,
        *,
        any_address: bool = False,
    ) -> None:
        self._app = app
        self._host_names = frozenset(name.lower() for name in host_names)
        self._any_address = any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        reason = self._foreign(scope)
        if reason is not None:
            sentence = (
                f"the request's {reason} header does not belong to this program. "
                "Open the page by the address that mom-chat printed."
            )
            await refuse(scope, receive, send, 403, sentence)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = {name for name, _ in _HEADERS}
                kept = [(k, v) for k, v in message.get("headers", []) if k.lower() not in ours]
                message = {**message, "headers": [*kept, *_HEADERS]}
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _foreign(self, scope: Scope) -> str | None:
        """Why the request is not from our own page, None if it is."""
        headers = headers_of(scope)
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self._is_ours(_name(f"//{hosts[0]}")):
            return "Host"
        schemes = {"http": "http", "ws": "http", "https": "https", "wss": "https"}
        own = f"{schemes.get(scope.get('scheme', 'http'), 'http')}://{hosts[0]}".lower()
        if any(origin.lower() != own for origin in headers.get("origin", [])):
            return "Origin"
        sites = headers.get("sec-fetch-site", [])
        if any(site not in ("same-origin", "none") for site in sites):
            return "Sec-Fetch-Site"
        return None

    def _is_ours(self, name: str | None) -> bool:
        if name is None or name in self._host_names:
            return name is not None
        return self._any_address and _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
