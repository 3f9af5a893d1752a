"""Programs that are told to end while they read: what was read is kept, and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest

from app.interrupts import sigterm_is_an_exception
from app.library.library import Library
from benchmarks.long_model import make_document, make_long_model

TOKENS = 60_000


def test_sigterm_closes_everything_on_the_way_out() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, sigterm_is_an_exception():
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_another_thread_signals_are_left_alone() -> None:
    def serve() -> None:
        with sigterm_is_an_exception():
            seen.append(signal.getsignal(signal.SIGTERM))

    seen: list[Any] = []
    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("long") / "model"
    make_long_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    make_document(folder.parent / "long.txt", TOKENS, tokenizer)
    return folder


def mom(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "app.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def until(stream: Any, start: str) -> str:
    for line in stream:
        if line.startswith(start):
            return str(line)
    raise AssertionError(f"it ended before {start!r}")


@pytest.mark.slow
def test_mom_ask_that_is_terminated_goes_on_the_next_time(model: Path, tmp_path: Path) -> None:
    document = str(model.parent / "long.txt")
    command = ["ask", document, "-q", "What?", "--model", str(model), "--home", str(tmp_path)]
    first = mom(*command, "--max-new-tokens", "4", "--json", "--chunk-tokens", "1024")
    until(first.stderr, "Reading")
    first.send_signal(signal.SIGTERM)
    stdout, stderr = first.communicate(timeout=60)
    assert (first.returncode, stdout) == (143, "")
    assert "the reading is saved at" in stderr
    second = mom(*command, "--max-new-tokens", "4", "--json", "--chunk-tokens", "1024")
    stdout, _ = second.communicate(timeout=120)
    assert json.loads(stdout)["resumed_fraction"] > 0


@pytest.mark.slow
def test_a_server_that_is_terminated_keeps_its_reading_and_no_upload(
    model: Path, tmp_path: Path
) -> None:
    import httpx

    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = ["chat", "--model", str(model), "--home", str(tmp_path / "home"), "--no-cache"]
    server = mom(*command, TMPDIR=str(temporary))
    try:
        address = until(server.stdout, "mom-chat is at").split()[3]
        with httpx.Client(base_url=address, timeout=60) as client:
            batch = uuid.uuid4().hex
            content = (model.parent / "long.txt").read_bytes()
            client.put(f"/uploads/{batch}", params={"path": "long.txt"}, content=content)
            client.post(f"/uploads/{batch}")
            chat = client.post("/chats").json()["id"]
            assert client.post(f"/chats/{chat}/ask", json={"question": "What?"}).is_success
            with client.stream("GET", "/events", params={"chat": chat}) as events:
                for line in events.iter_lines():
                    if '"phase": "reading"' in line:
                        break
        assert list(temporary.glob("mom-chat-*"))
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)
        assert server.returncode == 143
    finally:
        server.kill()
        server.communicate()
    (entry,) = Library(tmp_path / "home").list()
    assert not entry.is_whole
    assert not entry.problem
    assert not list(temporary.glob("mom-chat-*"))
