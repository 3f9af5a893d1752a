"""Uploads: what breaks off leaves nothing, a full disk is a sentence, nobody writes to others."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import app.workspace.uploads
from app.workspace.uploads import Uploads, new_upload_folder
from mom_core.errors import DocumentError
from tests.security.conftest import HERE, Server


def send_half(server: Server, batch: str) -> int:
    """An upload whose sender goes away in the middle; the status it never sees."""
    messages = iter(
        [
            {"type": "http.request", "body": b"half a fi", "more_body": True},
            {"type": "http.disconnect"},
        ]
    )
    statuses: list[int] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        if "status" in message:
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": "PUT",
        "scheme": "http",
        "path": f"/uploads/{batch}",
        "raw_path": f"/uploads/{batch}".encode(),
        "query_string": b"path=p/a.txt",
        "root_path": "",
        "headers": [(b"host", HERE.encode())],
        "http_version": "1.1",
        "server": ("127.0.0.1", 7860),
        "client": ("127.0.0.1", 1),
    }
    asyncio.run(server.app(scope, receive, send))
    return statuses[0]


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_an_upload_that_breaks_off_leaves_no_file(server: Server) -> None:
    batch = uuid.uuid4().hex
    whole = server.ask("PUT", f"/uploads/{batch}", params={"path": "p/b.txt"}, content=b"whole")
    assert whole.status_code == 204
    assert send_half(server, batch) == 400
    assert not files_below(server.workspace.folder / batch)
    # The rest of the folder is no document without it.
    after = server.ask("PUT", f"/uploads/{batch}", params={"path": "p/c.txt"}, content=b"c")
    assert "ended already" in after.json()["detail"]
    assert server.ask("POST", f"/uploads/{batch}").status_code == 400


def test_a_full_disk_during_an_upload_is_a_sentence(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    batch = uuid.uuid4().hex
    monkeypatch.setattr(Path, "open", lambda *_, **__: Full())
    answer = server.ask("PUT", f"/uploads/{batch}", params={"path": "a.txt"}, content=b"x")
    assert answer.status_code == 507
    assert "No space left on device. Free some disk space." in answer.json()["detail"]
    monkeypatch.undo()
    assert not files_below(server.workspace.folder / batch)
    assert server.ask("GET", "/samples").status_code == 200


def test_nobody_writes_into_a_document_that_is_here(server: Server) -> None:
    batch = uuid.uuid4().hex
    for content, status in ((b"first", 204), (b"second", 400)):
        path = f"/uploads/{batch}"
        answer = server.ask("PUT", path, params={"path": "a.txt"}, content=content)
        assert answer.status_code == status
        server.ask("POST", path)
    assert (server.workspace.folder / batch / "0").read_bytes() == b"first"
    server.ask("DELETE", f"/documents/{batch}")


def test_two_tabs_upload_at_once(server: Server) -> None:
    """Forty batches of two threads: each keeps its own files."""

    def tab(number: int) -> list[tuple[str, bytes]]:
        sent = []
        for turn in range(20):
            batch, content = uuid.uuid4().hex, f"{number} {turn}".encode()
            for name in ("p/a.txt", "p/b.txt"):
                server.ask("PUT", f"/uploads/{batch}", params={"path": name}, content=content)
            assert server.ask("POST", f"/uploads/{batch}").status_code == 204
            sent.append((batch, content))
        return sent

    with ThreadPoolExecutor(2) as pool:
        sent = [one for tabs in pool.map(tab, range(2)) for one in tabs]
    for batch, content in sent:
        folder = server.workspace.folder / batch
        assert [(folder / name).read_bytes() for name in "01"] == [content, content]
        server.ask("DELETE", f"/documents/{batch}")


def test_a_folder_of_10_000_files(server: Server) -> None:
    """Names are data: the state that every tab gets does not grow with them."""
    uploads = Uploads(server.workspace.folder)
    batch = uuid.uuid4().hex
    for number in range(10_000):
        uploads.place(batch, f"p/d{number % 100}/f{number}.txt").write_bytes(b"x")
    document_list = server.workspace.documents
    document_list.add(batch, uploads.finish(batch))
    end = time.monotonic() + 300
    while not (document_list.states()[-1].sections or document_list.states()[-1].error):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert document_list.states()[-1].sections == "10,000 files"
    parts = server.ask("GET", f"/documents/{batch}/parts")
    assert len(parts.json()["labels"]) == 10_000
    assert len(repr(document_list.states()[-1])) < 10_000
    server.ask("DELETE", f"/documents/{batch}")
    assert not (server.workspace.folder / batch).exists()


def test_limits_of_uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads = Uploads(tmp_path)
    monkeypatch.setattr(app.workspace.uploads, "_BATCH_BYTES_MAX", 1024**3)
    batch = uuid.uuid4().hex
    uploads.place(batch, "a").write_bytes(b"x")
    uploads.count(batch, 1024**3)
    with pytest.raises(DocumentError, match="More than 1 GiB were dropped at once"):
        uploads.count(batch, 1)
    monkeypatch.setattr(app.workspace.uploads, "_FILES_MAX", 1)
    with pytest.raises(DocumentError, match="holds more than 1 files"):
        uploads.place(batch, "b")
    monkeypatch.setattr(app.workspace.uploads, "_BATCHES_MAX", 1)
    with pytest.raises(DocumentError, match="1 uploads have begun and not ended"):
        uploads.place(uuid.uuid4().hex, "a")
    # Those whose tab is long gone make room.
    monkeypatch.setattr(app.workspace.uploads, "_IDLE_SECONDS_MAX", -1.0)
    uploads.place(uuid.uuid4().hex, "a")
    assert not files_below(tmp_path)
    for number in ("", "x" * 32, "A" * 32, "../" * 10 + "ab", "0" * 31):
        with pytest.raises(DocumentError, match="no proper number"):
            uploads.place(number, "a")


@pytest.mark.parametrize(
    "name",
    ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "..", "a\\b", "a\0b", "a" * 1025],
)
def test_names_that_no_dropped_file_has(tmp_path: Path, name: str) -> None:
    with pytest.raises(DocumentError, match="is not a name that a dropped file can have"):
        Uploads(tmp_path).place(uuid.uuid4().hex, name)
    assert not files_below(tmp_path)


def test_what_a_killed_program_left_is_deleted_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / f"mom-chat-{gone.pid}-abc"
    alive = tmp_path / f"mom-chat-{os.getpid()}-abc"
    other = tmp_path / "mom-chat-notes"
    for folder in (left, alive, other):
        folder.mkdir()
        (folder / "0").write_bytes(b"secret")
    # A link of the same name leads to what is somebody else's.
    (tmp_path / f"mom-chat-{gone.pid}-link").symlink_to(other)
    new = new_upload_folder()
    assert not left.exists()
    assert (alive / "0").exists()
    assert (other / "0").exists()
    assert new.stat().st_mode & 0o077 == 0
    assert new.name.startswith(f"mom-chat-{os.getpid()}-")


def test_uploads_are_deleted_when_the_program_ends() -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from app.workspace.workspace import Workspace
    from tests.security.conftest import no_model

    workspace = Workspace(no_model, "smollm2-135m")
    (workspace.folder / "0").write_bytes(b"x")
    workspace.close()
    assert not workspace.folder.exists()
