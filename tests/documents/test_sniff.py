"""What a file is, by its first bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from app.documents import read
from app.documents.sniff import sniff
from tests.documents import make
from tests.documents.bodies import body

PDFS = {"a.pdf": make.pdf([body(1)]), "b.pdf": make.pdf([body(2)])}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.tar", make.tarred(PDFS, "w")),
        ("x.tar.gz", make.tarred(PDFS)),
        ("x.zip", make.zipped(dict(PDFS), zipfile.ZIP_STORED)),
    ],
)
def test_an_archive_that_begins_with_a_pdf_is_an_archive(
    tmp_path: Path, name: str, content: bytes
) -> None:
    document = read(make.write(tmp_path, name, content))
    assert [section.path for section in document.sections] == ["a.pdf", "b.pdf"]


@pytest.mark.parametrize(
    ("name", "before", "kind"),
    [
        ("notes.md", b"a PDF starts with ", "text"),
        ("notes.pdf", b"a PDF starts with ", "pdf"),
        ("a", b"", "pdf"),
        ("a", b"\n\n", "pdf"),
        ("a", b"\x00\x01\x02\x1b@PJL", "pdf"),
    ],
)
def test_the_mark_of_a_pdf_may_be_spoken_of(
    tmp_path: Path, name: str, before: bytes, kind: str
) -> None:
    path = make.write(tmp_path, name, before + PDFS["a.pdf"])
    assert sniff(path, name) == kind


@pytest.mark.parametrize(
    ("member", "kind"),
    [
        ("word/document.xml", "docx"),
        ("ppt/presentation.xml", "pptx"),
        ("xl/workbook.xml", "xlsx"),
        ("xl/workbook.bin", "xls"),
        ("other/a.xml", "zip"),
    ],
)
def test_office_files_by_what_is_in_them(tmp_path: Path, member: str, kind: str) -> None:
    path = make.write(tmp_path, "a", make.zipped({"[Content_Types].xml": "<Types/>", member: ""}))
    assert sniff(path, "a.txt") == kind


@pytest.mark.parametrize("kind", ["text", "presentation", "spreadsheet"])
@pytest.mark.parametrize("form", ["", "-template"])
def test_opendocument_and_its_templates(tmp_path: Path, kind: str, form: str) -> None:
    mimetype = f"application/vnd.oasis.opendocument.{kind}{form}"
    path = make.write(tmp_path, "a", make.zipped({"mimetype": mimetype, "content.xml": ""}))
    assert (
        sniff(path, "a.zip") == {"text": "odt", "presentation": "odp", "spreadsheet": "ods"}[kind]
    )
