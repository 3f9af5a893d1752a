"""Who may come in: a token printed at the start, or a password, then a cookie.

On a machine of one person neither is needed. Where others share the machine, they can reach its
loopback address: a token that only the terminal shows keeps them out. Where other machines can
reach the server, a password does.
"""

from __future__ import annotations

import asyncio
import hmac
import html
import secrets
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import parse_qs

from app.server.asgi import App, Receive, Scope, Send, answer, headers_of, refuse

PASSWORD_CHARACTERS_MIN = 8
_FORM_BYTES_MAX = 4096
_WRONG_WAIT_SECONDS = 0.5
_WRONG_WAIT_SECONDS_MAX = 8.0
_LOGIN_PATH = "/login"
_PAGE = (Path(__file__).parents[1] / "ui" / "login.html").read_text("utf-8")


class Admission:
    """Lets only those in who know the secret.

    Args:
        app: everything behind.
        token: comes as `?token=` in the address; None: there is no token.
        password: is typed into a page of ours; None: there is none.
    """

    def __init__(self, app: App, *, token: str | None = None, password: str | None = None) -> None:
        self._app = app
        self._token = token
        self._password = password
        # Cookies are shared by all ports of a host: two programs must not take each other's.
        self._cookie_name = f"mom-chat-{secrets.token_hex(4)}"
        self._session = secrets.token_urlsafe(32)
        self._wrong = 0
        self._one_try_at_a_time = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or self._is_known(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await refuse(scope, receive, send, 401, "")
        elif self._password is not None and self._is_login(scope):
            await self._try_password(receive, send)
        elif self._brings_token(scope):
            await self._let_in(send)
        elif self._password is not None and scope["path"] == "/" and scope["method"] == "GET":
            await self._show_login(send, 200, "")
        else:
            way = (
                "type the password on the first page"
                if self._password is not None
                else "open the whole address that mom-chat printed, with its token"
            )
            await refuse(scope, receive, send, 401, f"you are not known here; {way}.")

    def _is_known(self, scope: Scope) -> bool:
        found = False
        for line in headers_of(scope).get("cookie", []):
            try:
                cookie = SimpleCookie(line).get(self._cookie_name)
            except CookieError:
                continue
            if cookie is not None and _same(cookie.value, self._session):
                found = True
        return found

    def _brings_token(self, scope: Scope) -> bool:
        if self._token is None or scope["method"] != "GET" or scope["path"] != "/":
            return False
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        return len(given) == 1 and _same(given[0], self._token)

    def _is_login(self, scope: Scope) -> bool:
        return bool(scope["method"] == "POST" and scope["path"] == _LOGIN_PATH)

    async def _try_password(self, receive: Receive, send: Send) -> None:
        assert self._password is not None
        body = await _small_body(receive)
        given = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True).get("password")
        # Guessing is slow for whoever tries, however many connections they open.
        async with self._one_try_at_a_time:
            if given is not None and _same(given[0], self._password):
                self._wrong = 0
                await self._let_in(send)
                return
            self._wrong += 1
            wait = _WRONG_WAIT_SECONDS * 2 ** min(self._wrong - 1, 10)
            await asyncio.sleep(min(wait, _WRONG_WAIT_SECONDS_MAX))
        await self._show_login(send, 401, "This is not the password. Try again.")

    async def _let_in(self, send: Send) -> None:
        cookie = f"{self._cookie_name}={self._session}; Path=/; HttpOnly; SameSite=Strict"
        # The address loses its token, so that it does not stay in the history.
        await answer(send, 303, "", headers=[("location", "/"), ("set-cookie", cookie)])

    async def _show_login(self, send: Send, status: int, fault: str) -> None:
        page = _PAGE.replace("{fault}", html.escape(fault))
        await answer(send, status, page, kind="text/html")


def new_token() -> str:
    """A secret that nobody guesses, for one start of the program."""
    return secrets.token_urlsafe(24)


def _same(given: str, secret: str) -> bool:
    """Compares in a time that tells nothing about where they differ."""
    return hmac.compare_digest(given.encode(), secret.encode())


async def _small_body(receive: Receive) -> bytes:
    body = b""
    while len(body) <= _FORM_BYTES_MAX:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            break
    return body[:_FORM_BYTES_MAX]
