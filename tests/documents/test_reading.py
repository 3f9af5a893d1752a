"""What reading leaves behind, and when it gives up."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest

from app.documents import read, stream
from mom_core.errors import DocumentError
from tests.documents import make
from tests.documents.bodies import body

ROOT = str(Path(__file__).parents[2])


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_no_temporary_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_cancelled: bool
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    files = {f"{n}.pdf": make.pdf([body(n)]) for n in range(4)}
    path = make.write(tmp_path, "a.tar.gz", make.tarred(files))
    if not is_cancelled:
        assert len(read(path).sections) == 4
    else:
        with contextlib.closing(stream(path)) as reading:
            while not next(reading).sections:
                pass
    assert list(folder.iterdir()) == []


def make_crash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, condition: str) -> None:
    code = f"""
import os
import app.documents.formats.pdf.pdfium as module
read_page = module.PdfiumFile.read_page
def crash(self, n):
    return os._exit(139) if {condition} else read_page(self, n)
module.PdfiumFile.read_page = crash
"""
    make.write(tmp_path / "site", "sitecustomize.py", code.encode())
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}:{ROOT}")


def test_files_that_crash_hide_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_crash(monkeypatch, tmp_path, "True")
    for number in range(12):
        make.write(tmp_path / "p", f"{number:02}.pdf", make.pdf([body(1)]))
    make.write(tmp_path / "p", "z.txt", b"still read")
    document = read(tmp_path / "p")
    assert [section.label for section in document.sections] == ["z.txt"]
    assert len(document.left_out) == 12


def test_a_document_is_given_up_when_no_page_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_crash(monkeypatch, tmp_path, "n < 11")
    path = make.write(tmp_path, "a.pdf", make.pdf([body(n) for n in range(12)]))
    with pytest.raises(DocumentError, match="ended by a fault"):
        read(path)
