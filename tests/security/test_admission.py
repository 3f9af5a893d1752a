"""The token and the password: who knows neither gets nothing, from no route."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from app.cli.access_options import access_from
from app.server.access import Access
from app.server.admission import Admission
from mom_core.errors import InvalidSetting
from tests.security.conftest import Server, all_routes

TOKEN = "t" * 32
PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def with_token(workspace: Any) -> Server:
    return Server(workspace, Access(token=TOKEN))


@pytest.fixture(scope="module")
def with_password(workspace: Any) -> Server:
    return Server(workspace, Access(host="0.0.0.0", password=PASSWORD))


def cookie_of(answer: Any) -> str:
    return str(answer.headers["set-cookie"].split(";")[0])


def test_without_the_token_no_route_answers(with_token: Server) -> None:
    for method, path in sorted(all_routes(with_token.app)):
        for query in ("", "?token=wrong", f"?token={TOKEN}x", "?token="):
            answer = with_token.ask(method, path + query, content=b"")
            assert answer.status_code == 401, (method, path)
            assert "set-cookie" not in answer.headers
    assert "open the whole address that mom-chat printed" in with_token.ask("GET", "/").text


def test_the_token_becomes_a_cookie_and_leaves_the_address(with_token: Server) -> None:
    answer = with_token.ask("GET", f"/?token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    flags = {flag.strip() for flag in answer.headers["set-cookie"].split(";")[1:]}
    assert flags == {"Path=/", "HttpOnly", "SameSite=Strict"}
    assert TOKEN not in cookie_of(answer)
    known = {"cookie": f"other=1; {cookie_of(answer)}"}
    assert with_token.ask("GET", "/samples", headers=known).status_code == 200
    for wrong in (cookie_of(answer)[:-1], cookie_of(answer).split("=")[0] + "=", "a=b", "\xff=1"):
        headers = {"cookie": wrong.encode("latin-1")}
        assert with_token.ask("GET", "/samples", headers=headers).status_code == 401


def test_a_token_is_new_at_each_start() -> None:
    tokens = [access_from("127.0.0.1", None, uses_token=True).token for _ in range(2)]
    assert tokens[0] != tokens[1]
    assert len(tokens[0] or "") >= 32
    assert access_from("127.0.0.1", None, uses_token=False) == Access()
    assert Access(token="abc").url(7860) == "http://127.0.0.1:7860/?token=abc"


def test_the_plain_address_works_as_it_is(server: Server) -> None:
    assert server.ask("GET", "/").status_code == 200


def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import hmac

    compared: list[bytes] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append(b)
        return a == b

    monkeypatch.setattr(hmac, "compare_digest", compare)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("nobody gets in")

    class Behind:
        pass

    behind: Any = Behind.__new__(Server)
    behind.app = Admission(app, token=TOKEN, password=PASSWORD)
    behind.ask("GET", "/?token=wrong")
    behind.ask("POST", "/login", data={"password": "wrong"})
    assert compared == [TOKEN.encode(), PASSWORD.encode()]


def test_a_password_is_asked_for_on_a_page_of_ours(with_password: Server) -> None:
    page = with_password.ask("GET", "/")
    assert page.status_code == 200
    assert '<form method="post" action="/login">' in page.text
    assert "gradio" not in page.text
    assert "<script" not in page.text
    for method, path in sorted(all_routes(with_password.app)):
        if path not in ("/", "/login"):
            assert with_password.ask(method, path, content=b"").status_code == 401, (method, path)


def test_the_right_password_opens_and_a_wrong_one_is_slow(with_password: Server) -> None:
    begin = time.monotonic()
    wrong = with_password.ask("POST", "/login", data={"password": "<script>"})
    assert wrong.status_code == 401
    assert time.monotonic() - begin >= 0.5
    assert "This is not the password" in wrong.text
    assert "<script" not in wrong.text
    assert "set-cookie" not in wrong.headers
    assert with_password.ask("POST", "/login", content=b"x" * 100_000).status_code == 401
    right = with_password.ask("POST", "/login", data={"password": PASSWORD})
    assert right.status_code == 303
    known = {"cookie": cookie_of(right)}
    assert with_password.ask("GET", "/samples", headers=known).status_code == 200


def test_a_password_does_not_help_a_foreign_page_or_name(with_password: Server) -> None:
    for headers in ({"origin": "http://evil.com"}, {"host": "evil.com"}):
        data = {"password": PASSWORD}
        assert with_password.ask("POST", "/login", headers=headers, data=data).status_code == 403
    # By its number it may be reached from elsewhere.
    assert with_password.ask("GET", "/", headers={"host": "192.168.1.7:7860"}).status_code == 200


def test_a_host_beyond_this_machine_demands_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MOM_PASSWORD", raising=False)
    for host in ("0.0.0.0", "::", "192.168.1.7", "example.org", ""):
        with pytest.raises(InvalidSetting, match="a password is needed: give --password-file"):
            access_from(host, None, uses_token=False)
        with pytest.raises(InvalidSetting, match="must have at least 8"):
            Access(host=host, password="short")
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        assert access_from(host, None, uses_token=False).is_local
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    assert access_from("0.0.0.0", file, uses_token=False).password == PASSWORD
    monkeypatch.setenv("MOM_PASSWORD", PASSWORD)
    access = access_from("0.0.0.0", None, uses_token=False)
    assert access.password == PASSWORD
    # Neither in a log nor in the surroundings of a child.
    assert PASSWORD not in repr(access)
    assert "MOM_PASSWORD" not in __import__("os").environ


def test_it_says_in_red_that_other_machines_can_reach_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import click

    import app.server.serve as module

    def stop(*_: Any) -> Any:
        raise InvalidSetting("Far enough.")

    monkeypatch.setattr(module, "Workspace", stop)
    monkeypatch.setattr(click, "echo", lambda text, err: print(text))
    from mom_core.config import EngineConfig

    with pytest.raises(InvalidSetting, match="Far enough"):
        module.serve(
            port=None,
            model="x",
            config=EngineConfig(),
            access=Access(host="0.0.0.0", password=PASSWORD),
        )
    said = capsys.readouterr().out
    assert said.startswith("\x1b[31m\x1b[1mWARNING: other machines can reach this program")
    assert "not encrypted" in said
    assert PASSWORD not in said
