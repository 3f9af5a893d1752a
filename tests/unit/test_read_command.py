"""`mom read`: text on stdout, counts on stderr, one JSON object, and no torch."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pypdf
import pytest

from app.cli import read as read_command
from app.documents import DEFAULT_LIMITS, DEFAULT_OPTIONS, Document, Health, Section
from app.prompt.prompt import TokenizedDocument
from mom_core.errors import DocumentError
from tests.documents import make
from tests.documents.bodies import body
from tests.unit.mom import mom_read


def test_text_goes_to_stdout_and_counts_to_stderr(samples: Path) -> None:
    result = mom_read(str(samples / "observatory-handbook.pdf"), "--pages", "2-3")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("[p. 2]\n1. The instruments\n")
    assert "[p. 3]\n" in result.stdout
    assert "2 of 2 pages" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.builtin
def test_json_has_sections_tokens_and_what_was_left_out(tmp_path: Path, samples: Path) -> None:
    bad = make.write(tmp_path, "bad.pdf", b"%PDF- rubbish")
    result = mom_read(str(samples / "tidebell"), str(bad), "--exclude", "*/table.py", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    (document,) = report["documents"]
    assert set(document) == {"name", "kind", "sections", "tokens", "left_out", "notes"}
    assert (document["name"], document["kind"]) == ("tidebell", "code")
    assert [section["label"] for section in document["sections"]][:2] == ["README.md", ".gitignore"]
    section = document["sections"][0]
    assert set(section) == {"label", "tokens", "characters", "health"}
    assert section["tokens"] > 100
    assert section["characters"] > 400
    reasons = {one["path"]: (one["reason"], one["tokens"] > 10) for one in document["left_out"]}
    assert reasons == {
        "poetry.lock": ("lock file", True),
        "tidebell/table.py": ("excluded", True),
    }
    total = sum(section["tokens"] for section in document["sections"])
    assert report["tokens"] == document["tokens"] > total
    assert [error["path"] for error in report["errors"]] == [str(bad)]
    assert "damaged or not a PDF" in report["errors"][0]["error"]


def test_what_was_left_out_is_told_with_secrets_first(tmp_path: Path) -> None:
    make.write(tmp_path / "p", "a.py", b"x = 1")
    make.write(tmp_path / "p", "z/.env", b"TOKEN=1")
    for number in range(25):
        make.write(tmp_path / "p", f"{number:02}.png", b"\x89PNG")
    told = mom_read(str(tmp_path / "p")).stderr.splitlines()
    assert re.fullmatch(
        r"  Left out: z/\.env \(probable secret \(by its name\), \d+ tokens\)", told[1]
    )
    assert told[2] == "  Left out: 00.png (not text)"
    assert told[21:] == ["  … and 6 more; mom read --json lists them all."]


@pytest.mark.builtin
def test_tokens_are_those_of_the_prompt(samples: Path, builtin_engine: object) -> None:

    from app.documents import read
    from app.prompt.prompt import PromptBuilder, tokenize
    from app.prompt.tokenizer_files import load_encoder

    engine: Any = builtin_engine
    document = read(samples / "observatory-handbook.pdf")
    by_model = PromptBuilder(engine.tokenizer).tokenize(document)
    by_files = tokenize(document, load_encoder("smollm2-135m"))
    assert by_files.section_ids == by_model.section_ids
    assert by_files.tokens == by_model.tokens


def test_nothing_readable_exits_with_2(tmp_path: Path) -> None:
    result = mom_read(str(tmp_path), "--json")
    assert result.returncode == 2
    assert json.loads(result.stdout)["documents"] == []
    assert "holds no text file" in result.stderr


def test_a_model_without_tokenizer_costs_the_counts_only(tmp_path: Path) -> None:
    path = make.write(tmp_path, "a.txt", b"words")
    result = mom_read(str(path), "--model", str(tmp_path), "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout)["tokens"] is None
    assert "No token count" in result.stderr


def test_sections_of_a_shared_document_come_in_order(tmp_path: Path) -> None:
    path = make.write(tmp_path, "a.pdf", make.pdf([body(n) for n in range(600)]))
    result = mom_read(str(path))
    labels = [line for line in result.stdout.splitlines() if line.startswith("[")]
    assert labels == [f"[p. {n}]" for n in range(1, 601)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--limit", "pages=x"], "must be a whole number"),
        (["--extractor", "magic"], "'magic' is not one of"),
        ([], "Missing argument"),
    ],
)
def test_mistakes_get_one_sentence(arguments: list[str], words: str) -> None:
    path = [] if "argument" in words else ["a.txt"]
    result = mom_read(*path, *arguments)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_the_report_has_health_notes_and_sums() -> None:
    health = Health("pypdf", undecodable_characters=2, fault="a fault")
    document = Document("a", "pdf", (Section("p. 1", "abc", health=health),), notes=("A note.",))
    counted = TokenizedDocument(document, [1], [[2, 3]])
    report = read_command._report([(document, counted), (document, counted)], [])
    assert report == {
        "documents": [
            {
                "name": "a",
                "kind": "pdf",
                "sections": [
                    {"label": "p. 1", "tokens": 2, "characters": 3, "health": asdict(health)}
                ],
                "tokens": 3,
                "left_out": [],
                "notes": ["A note."],
            }
        ]
        * 2,
        "tokens": 6,
        "errors": [],
    }


def test_the_password_is_asked_for_in_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = pypdf.PdfWriter(clone_from=make.write(tmp_path, "a.pdf", make.pdf([body(1)])))
    writer.encrypt("sesame", algorithm="RC4-128")
    writer.write(tmp_path / "locked.pdf")
    asked: list[str] = []

    def prompt(words: str, *, hide_input: bool, err: bool) -> str:
        assert hide_input
        assert err
        asked.append(words)
        return "sesame"

    monkeypatch.setattr("click.prompt", prompt)
    path = tmp_path / "locked.pdf"
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(DocumentError, match="locked with a password"):
        read_command.read_all((path,), DEFAULT_OPTIONS, DEFAULT_LIMITS, None)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    (document,) = read_command.read_all((path,), DEFAULT_OPTIONS, DEFAULT_LIMITS, None)
    assert "alpha" in document.sections[0].text
    assert asked == ["Password of locked.pdf"]


def test_several_files_are_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for the other: one after the other, neither would end."""
    both = threading.Barrier(2)

    def read_slowly(path: Path, name: str, *_: Any, **__: Any) -> Document:
        # The one that was given first ends last.
        both.wait(timeout=300)
        time.sleep(0.2 if name == "a" else 0)
        return Document(name, "text", (Section(name, path.name),))

    monkeypatch.setattr(read_command, "read_document", read_slowly)
    documents = read_command.read_all(
        (tmp_path / "a", tmp_path / "b"), DEFAULT_OPTIONS, DEFAULT_LIMITS, None
    )
    assert [document.name for document in documents] == ["a", "b"]


def test_interrupting_ends_it_at_once(tmp_path: Path) -> None:
    code = b"""
import time
import app.documents.formats.pdf.pdfium as module
read_page = module.PdfiumFile.read_page
module.PdfiumFile.read_page = lambda self, n: time.sleep(999) if n == 40 else read_page(self, n)
"""
    make.write(tmp_path / "site", "sitecustomize.py", code)
    path = make.write(tmp_path, "a.pdf", make.pdf([body(n) for n in range(60)]))
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "read", str(path), "--no-cache"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=root,
        env=os.environ | {"PYTHONPATH": f"{tmp_path / 'site'}:{root}"},
        # A shell that runs tests in the background makes its children ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.read(10) == b"[p. 1]\nalp"
    process.send_signal(signal.SIGINT)
    text, words = process.communicate(timeout=300)
    # The page that hangs was not waited for.
    assert b"[p. 40]" not in text
    assert b"[p. 41]" not in text
    assert process.returncode == 130
    assert b"Stopped." in words
    assert b"Traceback" not in words
