"""`mom ask`: one answer, one JSON object, one sentence for a mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from app.citations import find_citations
from app.cli.ask import way_out
from app.documents import Document, Section, read


def mom(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments], capture_output=True, text=True, timeout=180
    )


def test_help_needs_no_torch() -> None:
    heavy = {"torch", "gradio", "transformers"}
    code = f"import sys, app.cli.main; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "ask" in mom("--help").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ask", "nothing.pdf", "-q", "x"], "nothing.pdf was not found"),
        (["ask", "pyproject.toml"], "Missing option '--question'"),
        (["ask", "pyproject.toml", "-q", " "], "The question is empty"),
        (["ask", "pyproject.toml", "-q", "x", "--kv", "tape"], "'tape' is not one of"),
        (["ask", "pyproject.toml", "-q", "x", "--chunk-tokens", "0"], "at least 1"),
        (["ask", "pyproject.toml", "-q", "x", "--chunk-tokens", "many"], "'many' is neither"),
        (["ask", "pyproject.toml", "-q", "x", "--pages", "1"], "has no pages to choose from"),
        (["ask", "pyproject.toml", "-q", "x", "--host-memory", "much"], "'much' is not a size"),
        (["ask", "pyproject.toml", "-q", "x", "--temperature", "-1"], "temperature"),
        (["ask", "pyproject.toml", "-q", "x", "--extend", "yarn"], "context_tokens is not set"),
        (["--port", "0"], "port"),
    ],
)
def test_mistakes_get_one_sentence(arguments: list[str], words: str) -> None:
    result = mom(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.builtin
def test_json_is_one_object(samples: Path) -> None:
    path = str(samples / "observatory-handbook.pdf")
    question = "Who built the observatory?"
    result = mom("ask", path, "-q", question, "--max-new-tokens", "24", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["chosen"]["fits"]
    assert f"Chosen because {report['chosen']['reason']}." in result.stderr
    assert report["chosen"]["kv"] == "device"
    # What is said and what is printed for programs are one figure.
    assert f"peak host {report['peak_host_bytes'] / 2**30:.2f} GiB" in result.stderr
    assert set(report) == {
        "answer",
        "finish_reason",
        "prompt_tokens",
        "reused_tokens",
        "resumed_fraction",
        "new_tokens",
        "prefill_seconds",
        "decode_seconds",
        "prefill_tokens_per_second",
        "decode_tokens_per_second",
        "tokens_per_step",
        "peak_device_bytes",
        "peak_host_bytes",
        "documents",
        "citations",
        "notice",
        "chosen",
    }
    (document,) = report["documents"]
    assert (document["name"], document["sections"]) == ("observatory-handbook.pdf", 8)
    assert 1000 < document["tokens"] < report["prompt_tokens"]
    assert report["finish_reason"] in ("stop", "length")
    assert isinstance(report["peak_device_bytes"], int)
    assert report["peak_host_bytes"] > 300_000_000
    assert "observatory" in report["answer"].lower()
    assert "tokens/s" in result.stderr
    assert (report["reused_tokens"], report["resumed_fraction"]) == (0, 0)
    # Another process, another question: the document is not read again.
    again = mom("ask", path, "-q", "When?", "--max-new-tokens", "2", "--json")
    assert json.loads(again.stdout)["reused_tokens"] > document["tokens"]
    unsaved = mom("ask", path, "-q", "When?", "--max-new-tokens", "2", "--json", "--no-save")
    assert json.loads(unsaved.stdout)["reused_tokens"] == 0


@pytest.mark.builtin
def test_some_pages_and_where_the_answer_comes_from(samples: Path) -> None:
    path = str(samples / "observatory-handbook.pdf")
    question = 'Say [p. 3] and "never said by anyone at all" [p. 99].'
    words = ["--pages", "2-3", "--max-new-tokens", "24", "--no-save", "--json"]
    report = json.loads(mom("ask", path, "-q", question, *words).stdout)
    assert report["documents"][0]["sections"] == 2
    marks = {one["mark"]: (one["document"], one["found"]) for one in report["citations"]}
    assert marks["p. 3"] == ("observatory-handbook.pdf", True)
    # A page that was not given.
    assert marks["p. 99"] == ("", False)
    found = find_citations(report["answer"], [read(samples / "observatory-handbook.pdf")])
    assert report["citations"] == [asdict(one) | {"also_in": []} for one in found]


def test_only_what_is_possible_is_proposed() -> None:
    page, file = Section("p. 1", "text"), Section("a.py", "text")
    pages = Document("a.pdf", "pdf", (page, page))
    assert way_out([pages]) == (
        "Use --pages to read only some pages, or use --fit to read only the parts that match the "
        "question best."
    )
    code = Document("a", "code", (file, file))
    assert way_out([code, pages]) == (
        "Use --exclude to leave files out, or use --fit to read only the parts that match the "
        "question best."
    )
    assert way_out([Document("a.md", "text", (page,))]) == "Read a shorter part of the text."


@pytest.mark.builtin
def test_a_stretched_window_comes_with_its_warning(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("The lamp is green.")
    window = ["--context-tokens", "16384", "--extend", "yarn"]
    result = mom("ask", str(path), "-q", "Colour?", "--max-new-tokens", "2", *window)
    assert result.returncode == 0, result.stderr
    assert "YaRN extends the context window" in result.stderr
    assert "from 8,192 to 16,384 tokens: positions are stretched" in result.stderr
    assert "This also changes the answers to short prompts" in result.stderr


@pytest.mark.builtin
def test_too_long_names_both_numbers_and_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("many words " * 9000)
    result = mom("ask", str(path), "-q", "x")
    assert result.returncode == 2
    assert "can read at most 8,192" in result.stderr
    assert "18,0" in result.stderr


@pytest.mark.builtin
def test_only_the_best_parts_on_request_and_said(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"f{number}.txt").write_text(f"Lamp {number} has the colour c{number}.\n" * 9)
    window = ["--context-tokens", "900", "--max-new-tokens", "4", "--json"]
    question = ["-q", "Which colour has lamp 17?"]
    refused = mom("ask", str(tmp_path), *question, *window)
    assert refused.returncode == 2
    assert "use --fit to read only the parts" in refused.stderr
    chosen = ["--include", "*.txt", "--exclude", "f29.*"]
    result = mom("ask", str(tmp_path), *question, *window, *chosen, "--fit")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert "  Left out: f29.txt (excluded, " in result.stderr
    assert "of 29 parts were read: those that match the question best" in report["notice"]
    assert report["prompt_tokens"] <= 896
    assert report["citations"] == []
