"""A document of 100,000 tokens (400,000 among the slow tests) from file to answer, for real.

The model is a random one of two layers whose window is 524,288 tokens; everything else is what a
person uses: the command line, the workspace behind the page, the disk tier.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.workspace.listed_document import Source
from app.workspace.workspace import Workspace
from benchmarks.long_model import make_document, make_long_model
from mom_core import Engine, EngineConfig
from mom_core.events import Finished

SLOW = pytest.param(400_000, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long") / "model"
    make_long_model(folder)
    return folder


def document(model: Path, tokens: int) -> Path:
    from transformers import AutoTokenizer

    path = model.parent / f"{tokens}.txt"
    if not path.exists():
        make_document(path, tokens, AutoTokenizer.from_pretrained(model))
    return path


def ask(model: Path, path: Path, scratch: Path) -> list[str]:
    command = [sys.executable, "-m", "app.cli", "ask", str(path), "-q", "What is it about?"]
    command += ["--model", str(model), "--kv", "disk", "--hidden", "disk", "--host-memory", "2GiB"]
    return [*command, "--scratch-folder", str(scratch), "--max-new-tokens", "8", "--json"]


@pytest.mark.parametrize("tokens", [100_000, SLOW])
def test_the_command_line_reads_it_all(model: Path, tokens: int, tmp_path: Path) -> None:
    command = ask(model, document(model, tokens), tmp_path)
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(result.stdout)
    assert report["prompt_tokens"] > tokens
    assert report["new_tokens"] == 8
    assert f"Reading {report['prompt_tokens']:,} tokens" in result.stderr
    assert not list(tmp_path.glob("mom-chat-run-*"))


def test_an_interrupt_ends_it_at_once_and_leaves_nothing(model: Path, tmp_path: Path) -> None:
    command = [*ask(model, document(model, 100_000), tmp_path), "--no-save"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Reading"):
            break
    assert len(list(tmp_path.glob("mom-chat-run-*"))) == 1
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=300)
    assert (process.returncode, stdout) == (130, "")
    assert stderr.splitlines()[-1] == "Stopped."
    assert not list(tmp_path.glob("mom-chat-run-*"))


@pytest.fixture
def workspace(model: Path, tmp_path: Path) -> Iterator[Workspace]:
    config = EngineConfig(scratch_folder=tmp_path)
    made = Workspace(Engine.load, str(model), config)
    made.configure(offload="KV + hidden to disk", max_new_tokens=4)
    yield made
    made.close()


def finished(workspace: Workspace) -> Finished:
    job = workspace.runs.job(workspace.conversations.newest.id)
    assert job is not None
    assert job.wait(600)
    event = job.events()[-1]
    assert isinstance(event, Finished)
    return event


@pytest.mark.parametrize("tokens", [40_000, SLOW])
def test_behind_the_page_it_stops_and_a_second_question_reads_little(
    model: Path, workspace: Workspace, tokens: int, tmp_path: Path
) -> None:
    workspace.documents.add("d", Source(document(model, tokens), "long.txt"))
    workspace.ask("What is it about?")
    job = workspace.runs.job(workspace.conversations.newest.id)
    assert job is not None
    fractions: list[float] = []
    while not fractions or fractions[-1] < 0.05:
        time.sleep(0.02)
        fractions += [getattr(event, "fraction", 0.0) for event in job.events()[-1:]]
        assert not job.is_over
    assert fractions == sorted(fractions)
    workspace.stop()
    assert job.wait(10)

    workspace.ask("What is it about?")
    first = finished(workspace)
    assert first.prompt_tokens > tokens
    workspace.ask("And what else?")
    second = finished(workspace)
    assert second.reused_tokens >= first.prompt_tokens
    assert second.prompt_tokens - second.reused_tokens < 100
    assert second.prefill_seconds < first.prefill_seconds / 5
    # A reading that was stopped is held to be gone on with; nothing outlives the engine.
    workspace.close()
    assert not list(tmp_path.glob("*/*.mapped"))
