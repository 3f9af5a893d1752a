"""Files are parsed in processes of their own, which may hang, crash or run out of memory."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from app.documents import Limits, ReadOptions, read, stream
from mom_core.errors import DocumentError
from tests.documents import make
from tests.documents.bodies import body
from tests.documents.make import Text


def test_a_page_that_hangs_is_skipped_and_said(tmp_path: Path) -> None:
    """A shading of a page that takes for ever; here a stand-in for the program Tesseract."""
    tools = make.write(
        tmp_path / "tools",
        "tesseract",
        b'#!/bin/sh\nif [ "$1" = --list-langs ]; then echo List; echo eng; exit; fi\n'
        b"exec sleep 60\n",
    )
    tools.chmod(0o755)
    path = make.write(tmp_path, "a.pdf", make.pdf([body(1), [], body(3)], picture_only=[1]))
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{tools.parent}:{before}"
    try:
        document = read(path, options=ReadOptions(extractor="ocr"), limits=Limits(page_seconds=1))
    finally:
        os.environ["PATH"] = before
    assert [bool(section.text) for section in document.sections] == [True, False, True]
    assert "1 seconds" in document.sections[1].health.fault or "timed out" in (
        document.sections[1].health.fault
    )


@pytest.mark.parametrize(
    ("act", "words"),
    [
        ("os._exit(139)", "not read: the program that read it ended by a fault"),
        ("time.sleep(99)", "not read: it took longer than 1 seconds"),
        ("time.sleep(99)", "took longer than 1 seconds to read.*--limit seconds=N"),
        ("os._exit(3)", "not read: it needs more than 2,048 MB of memory"),
    ],
)
def test_a_process_that_dies_or_hangs_costs_one_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str, words: str
) -> None:
    """The reading goes on behind the page at which a parsing process died."""
    code = f"""
import os, time
import app.documents.formats.pdf.pdfium as module
read_page = module.PdfiumFile.read_page
module.PdfiumFile.read_page = lambda self, n: {act} if n == 3 else read_page(self, n)
"""
    make.write(tmp_path / "site", "sitecustomize.py", code.encode())
    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}:{root}")
    path = make.write(tmp_path, "a.pdf", make.pdf([body(n) for n in range(6)]))
    if "--limit seconds" in words:
        with pytest.raises(DocumentError, match=words):
            read(path, limits=Limits(seconds=1))
        return
    document = read(path, limits=Limits(page_seconds=1))
    texts = [bool(section.text) for section in document.sections]
    assert texts == [True, True, True, False, True, True]
    assert document.sections[3].health.fault == words


def test_a_long_file_in_a_folder_comes_whole(tmp_path: Path) -> None:
    text = "\u00e9\u65e5 words of many kinds\n" * 150_000
    make.write(tmp_path, "a.txt", text.encode())
    assert read(tmp_path).sections[0].text == text


def test_memory_is_limited(tmp_path: Path) -> None:
    path = make.write(tmp_path, "a.ipynb", b'{"cells": [' + b'{"a": [0]},' * 3_000_000 + b"0]}")
    with pytest.raises(DocumentError, match=r"more than 400 MB of memory.*--limit memory_mb=N"):
        read(path, limits=Limits(memory_mb=400))


def test_one_long_line_does_not_fill_the_memory_of_the_parser(tmp_path: Path) -> None:
    line = b"word " * 8_000_000
    path = make.write(tmp_path, "a.txt", line)
    document = read(path, limits=Limits(memory_mb=300))
    assert len(document.sections[0].text) == len(line)


def test_cancelling_ends_the_process(tmp_path: Path) -> None:
    import psutil

    path = make.write(tmp_path, "a.pdf", make.pdf([body(n % 50) for n in range(1500)]))
    reading = stream(path)
    next(reading)
    children = psutil.Process().children()
    assert children
    reading.close()
    # It does not wait until they are done: they are killed in the middle of the document.
    assert psutil.wait_procs(children, timeout=60)[1] == []
    assert {child.returncode for child in children} <= {None, -signal.SIGKILL}


def test_time_is_limited_but_not_the_reader_s_own(tmp_path: Path) -> None:
    path = make.write(tmp_path, "a.pdf", make.pdf([body(n % 50) for n in range(900)]))
    reading = stream(path, limits=Limits(seconds=2))
    while not next(reading).sections:
        pass
    time.sleep(2.5)
    with contextlib.closing(reading):
        document = None
        while document is None:
            try:
                next(reading)
            except StopIteration as end:
                document = end.value
    assert len(document.sections) == 900


def test_long_documents_are_shared_and_stay_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = sys.modules["app.documents.parsing.read"]
    starts: list[int] = []
    start = reading._Reading._start  # type: ignore[attr-defined]

    def started(self: Any, one: Any) -> None:
        starts.append(one.job.start)
        start(self, one)

    monkeypatch.setattr(reading._Reading, "_start", started)  # type: ignore[attr-defined]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    pages = [[Text(72, 700, f"page number {n} of many")] for n in range(700)]
    document = read(make.write(tmp_path, "a.pdf", make.pdf(pages)))
    assert [s.text for s in document.sections] == [f"page number {n} of many" for n in range(700)]
    assert starts == [0, 233, 466]
