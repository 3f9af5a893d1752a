"""Every route, ours and Gradio's, is behind the guard; those the page does not need are closed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from app.server.request_limits import BODY_BYTES_MAX, RequestLimits, is_closed
from tests.security.conftest import HERE, ROOT, Server, all_routes

FOREIGN = {
    "foreign Host": {"host": "evil.com"},
    "foreign Origin": {"origin": "http://evil.com"},
    "null Origin": {"origin": "null"},
    "Origin of another port": {"origin": "http://127.0.0.1:9999"},
    "cross-site fetch": {"sec-fetch-site": "cross-site"},
}


@pytest.mark.parametrize("what", FOREIGN)
def test_every_route_refuses_foreign_requests(server: Server, what: str) -> None:
    routes = all_routes(server.app)
    ours = {("PUT", "/uploads/x"), ("GET", "/events"), ("POST", "/documents")}
    assert ours | {("POST", "/gradio_api/upload"), ("POST", "/gradio_api/queue/join")} <= routes
    assert len(routes) > 80
    for method, path in sorted(routes):
        answer = server.ask(method, path, headers=FOREIGN[what], content=b"")
        assert answer.status_code == 403, (method, path)
    assert not any(server.workspace.folder.iterdir())


@pytest.mark.parametrize("what", FOREIGN)
def test_websockets_are_closed_whoever_asks(server: Server, what: str) -> None:
    for headers in ({"host": HERE}, {"host": HERE, **FOREIGN[what]}):
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        scope = {
            "type": "websocket",
            "scheme": "ws",
            "path": "/gradio_api/queue/join",
            "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
        }
        asyncio.run(server.app(scope, receive, send))
        assert sent == [{"type": "websocket.close", "code": 1008}]


def test_a_multipart_upload_of_a_foreign_page_stores_nothing(server: Server) -> None:
    for path in ("/gradio_api/upload", "/upload"):
        for headers in (FOREIGN["foreign Origin"], {}):
            answer = server.ask("POST", path, headers=headers, files={"files": ("x.html", b"x")})
            assert answer.status_code in (403, 404)


def test_gradio_s_routes_that_the_page_does_not_need_are_closed(server: Server) -> None:
    needed = {path for _, path in all_routes(server.app) if not is_closed(path)}
    of_gradio = {path.rstrip("/") for path in needed if path.startswith("/gradio_api/")}
    # `run/predict` is needed as well; here every parameter is "x".
    assert of_gradio == {
        *("/gradio_api/app_id", "/gradio_api/cancel", "/gradio_api/heartbeat/x"),
        *("/gradio_api/info", "/gradio_api/queue/data", "/gradio_api/queue/join"),
        *("/gradio_api/reset", "/gradio_api/startup-events"),
    }
    for method, path in all_routes(server.app):
        if is_closed(path):
            assert server.ask(method, path).status_code == 404, (method, path)


@pytest.mark.parametrize(
    "file",
    ["/etc/passwd", "http://169.254.169.254/", str(ROOT / "pyproject.toml"), "pyproject.toml"],
)
def test_gradio_s_file_routes_give_nothing(server: Server, file: str) -> None:
    upload = server.workspace.folder / "0"
    upload.write_bytes(b"uploaded")
    try:
        for one in (file, str(upload)):
            for start in ("/gradio_api/file=", "/file=", "/gradio_api/file/", "/gradio_api/proxy="):
                for form in (one, quote(one, safe="")):
                    answer = server.ask("GET", start + form)
                    assert answer.status_code == 404, start + form
                    assert b"uploaded" not in answer.content
    finally:
        upload.unlink()


@pytest.mark.parametrize("start", ["/static/", "/assets/", "/svelte/", "/samples/"])
@pytest.mark.parametrize(
    "name", ["..%2f..%2f..%2fpyproject.toml", "%2e%2e/%2e%2e/pyproject.toml", "%2fetc%2fpasswd"]
)
def test_static_routes_give_only_their_own_files(server: Server, start: str, name: str) -> None:
    answer = server.ask("GET", start + name)
    assert answer.status_code in (403, 404, 405)
    assert b"[project]" not in answer.content
    assert b"root:" not in answer.content


def test_every_answer_forbids_what_comes_from_elsewhere(server: Server) -> None:
    for path in ("/", "/static/page.css", "/config", "/nothing"):
        headers = server.ask("GET", path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "img-src 'self' data: blob:" in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"


def test_a_large_body_is_refused_on_every_route_but_uploads(server: Server) -> None:
    """A post of 1 GB is refused by its announced length; nobody waits for its bytes."""
    for method, path in sorted(all_routes(server.app)):
        if method == "GET" or is_closed(path) or (method, path) == ("PUT", "/uploads/x"):
            continue
        answer = server.ask(method, path, headers={"content-length": str(1024**3)}, content=b"{}")
        assert answer.status_code == 413, (method, path)
    assert (
        b"more than 8 MB"
        in server.ask(
            "POST", "/documents", headers={"content-length": str(1024**3)}, content=b"{}"
        ).content
    )


def test_a_body_without_length_is_counted() -> None:
    seen: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message["body"])
            more = message["more_body"]
        seen.append(size)

    def post(blocks: int) -> list[Any]:
        left = [blocks]
        sent: list[Any] = []

        async def receive() -> Any:
            left[0] -= 1
            return {"type": "http.request", "body": b"x" * 1000, "more_body": left[0] > 0}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/documents",
            "headers": [(b"transfer-encoding", b"chunked")],
        }
        asyncio.run(RequestLimits(app, 5000)(scope, receive, send))
        assert left[0] >= blocks - 6
        return sent

    assert post(5) == []
    assert seen == [5000]
    assert post(10_000)[0]["status"] == 413
    assert seen == [5000]
    assert BODY_BYTES_MAX < 1024**3


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/passwd", "a/../b", "", "a\\b", "x" * 2000, "a/./b", "a\0b", "."]
)
def test_names_that_lead_elsewhere_are_refused(server: Server, name: str) -> None:
    answer = server.ask("PUT", f"/uploads/{'a' * 32}", params={"path": name}, content=b"x")
    assert answer.status_code == 400
    assert "not a name that a dropped file can have" in answer.json()["detail"]


@pytest.mark.parametrize(
    "name", ["CON", "nul.txt", "x" * 300, "a:b", "-rf", "<img src=x>.txt", "\u202etxt.exe", "a\nb"]
)
def test_odd_names_are_stored_under_numbers(server: Server, name: str) -> None:
    import uuid

    batch = uuid.uuid4().hex
    answer = server.ask("PUT", f"/uploads/{batch}", params={"path": name}, content=b"x")
    assert answer.status_code == 204
    folder: Path = server.workspace.folder
    assert [path.name for path in (folder / batch).iterdir()] == ["0"]
    assert (folder / batch).stat().st_mode & 0o077 == 0
    assert server.ask("POST", f"/uploads/{batch}").status_code == 204
    assert server.ask("DELETE", f"/documents/{batch}").status_code == 204
    assert not (folder / batch).exists()


@pytest.mark.parametrize("name", ["a.html", "a.svg", "a.pdf"])
def test_what_was_uploaded_is_never_served(server: Server, name: str) -> None:
    import uuid

    batch, script = uuid.uuid4().hex, b"<svg onload='alert(1)'><script>alert(1)</script></svg>"
    server.ask("PUT", f"/uploads/{batch}", params={"path": name}, content=script)
    server.ask("POST", f"/uploads/{batch}")
    for method, path in sorted(all_routes(server.app)):
        for place in (batch, f"{batch}/0", name):
            asked = path.replace("/x", f"/{place}", 1).replace("=x", f"={place}", 1)
            # Streams without end hold states, not files.
            is_stream = "heartbeat" in path or "queue/data" in path
            if method != "GET" or asked == path or is_stream:
                continue
            answer = server.ask(method, asked)
            if b"<script>alert" in answer.content:
                # The text as the model sees it, as data of our own script.
                assert answer.headers["content-type"] == "application/json", asked
    server.ask("DELETE", f"/documents/{batch}")
