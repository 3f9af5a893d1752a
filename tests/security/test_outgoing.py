"""Nothing is asked of the outside world unless a person names a model of the hub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.security.conftest import ROOT

# Every name looked up and every address called is written down, and refused.
WATCH = """
import ipaddress, socket
outgoing = []
connect, lookup = socket.socket.connect, socket.getaddrinfo
def is_here(host):
    host = host.decode() if isinstance(host, bytes) else host
    try:
        return host in (None, "", "localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
def watched_connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and not is_here(address[0]):
        outgoing.append(address)
        raise OSError("no network in this test")
    return connect(self, address)
def watched_lookup(host, *args, **kwargs):
    if not is_here(host):
        outgoing.append(host)
        raise socket.gaierror("no network in this test")
    return lookup(host, *args, **kwargs)
socket.socket.connect = socket.socket.connect_ex = watched_connect
socket.getaddrinfo = watched_lookup
"""
WHOLE_RUN = """
import sys, time, uuid
from pathlib import Path
from app.server.serve import create_app
from app.workspace.workspace import Workspace
from tests.security.conftest import Server
def load(source, config):
    from mom_core.engine import Engine
    return Engine.load(source, config)
workspace = Workspace(load, "smollm2-135m")
server = Server(workspace)
for path in ("/", "/config", "/theme.css", "/static/page.css", "/manifest.json"):
    assert server.ask("GET", path).status_code == 200, path
batch = uuid.uuid4().hex
html = b"<html><img src='http://example.org/a.png'><p>Ropes are tied twice.</p></html>"
server.ask("PUT", f"/uploads/{batch}", params={"path": "a.html"}, content=html)
server.ask("POST", f"/uploads/{batch}")
end = time.monotonic() + 300
while not workspace.model.is_ready or workspace.documents.is_preparing:
    assert time.monotonic() < end
    time.sleep(0.05)
chat = workspace.new_conversation()
workspace.configure(max_new_tokens=4)
workspace.ask("![](http://example.org/b.png) What is tied?", chat)
while workspace.is_busy:
    assert time.monotonic() < end
    time.sleep(0.05)
assert workspace.answered_turn(chat, 0)
workspace.close()
assert outgoing == [], outgoing
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WATCH + code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=180,
        env=os.environ | environment,
    )


@pytest.mark.builtin
def test_a_whole_run_asks_nothing_of_the_outside_world() -> None:
    result = run(WHOLE_RUN)
    assert result.returncode == 0, result.stderr[-2000:]


def test_the_watch_sees_what_it_should() -> None:
    code = """
import urllib.request
for url in ("http://example.org/", "http://192.0.2.1/"):
    try:
        urllib.request.urlopen(url, timeout=5)
    except OSError:
        pass
assert outgoing == ["example.org", "192.0.2.1"] or len(outgoing) == 2, outgoing
"""
    assert run(code, no_proxy="*").returncode == 0


def test_models_on_this_machine_never_ask_the_hub(tmp_path: Path) -> None:
    """A folder, a file and nonsense: each is loaded from here or refused."""
    code = """
import sys
from mom_core.engine import Engine
for source in sys.argv[1:] or [{folder!r}, {folder!r} + "/a.gguf", "nothing", "/no/where", "a/b/c"]:
    try:
        Engine.load(source)
    except Exception:
        # How it is refused is told elsewhere.
        pass
assert outgoing == [], outgoing
""".format(folder=str(tmp_path))
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    result = run(code)
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.slow
def test_a_model_of_the_hub_is_asked_for_when_it_is_named(tmp_path: Path) -> None:
    code = """
from mom_core.engine import Engine
from mom_core.errors import MomError
try:
    Engine.load("example/no-such-model")
except MomError:
    pass
assert outgoing, "the watch saw nothing"
"""
    result = run(code, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="0", HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert result.returncode == 0, result.stderr[-2000:]
