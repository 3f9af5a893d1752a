"""What is special about PDFs: reading order, hyphens, running lines, health, passwords, scans."""

from __future__ import annotations

import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pypdf
import pypdfium2
import pytest

from app.documents import Document, DocumentLocked, Health, ReadOptions, Section, read, receipt
from app.documents.formats.pdf.columns import find_columns
from app.documents.formats.pdf.hyphens import text_of, vocabulary
from app.documents.formats.pdf.lines import Line, PageLines
from app.documents.formats.pdf.pdfium import Damaged, PdfiumFile
from app.documents.pages import page_numbers
from app.documents.parsing.readers import read_job
from app.documents.parts import Job
from mom_core.errors import DocumentError
from tests.documents import make
from tests.documents.bodies import WORDS, body, book
from tests.documents.make import Text


def test_running_headers_and_footers_are_left_out_and_said(tmp_path: Path) -> None:
    path = make.write(tmp_path, "book.pdf", book(40))
    document = read(path)
    for number, section in enumerate(document.sections, 1):
        assert section.text == "\n".join(text.text for text in body(number))
        assert section.health.running_characters > 10
    kept = read(path, options=ReadOptions(drops_running_lines=False))
    assert kept.sections[1].text.startswith("2 Harbour Manual\n")
    assert kept.sections[1].text.endswith("\nHarbour Office 2020")


def test_headings_and_lists_at_the_edge_are_no_running_lines(tmp_path: Path) -> None:
    pages = [[Text(72, 760, f"{n}. On {WORDS[n]}"), *body(n)] for n in range(1, 13)]
    document = read(make.write(tmp_path, "a.pdf", make.pdf(pages)))
    for number, section in enumerate(document.sections, 1):
        assert section.text.startswith(f"{number}. On {WORDS[number]}\n")
    # Two pages are too few to tell what runs through them.
    few = [[Text(72, 760, "Harbour Manual"), *body(n)] for n in range(2)]
    for section in read(make.write(tmp_path, "b.pdf", make.pdf(few))).sections:
        assert section.text.startswith("Harbour Manual\n")


def columns(number: int, *, interleaved: bool) -> tuple[list[Text], str]:
    """A page of two columns and its text in the right order."""
    left = [
        Text(60, 680 - 14 * n, f"left{n} of page {number} says many words here") for n in range(20)
    ]
    right = [
        Text(330, 680 - 14 * n, f"right{n} of page {number} says as many more") for n in range(20)
    ]
    title = Text(60, 740, f"A wide title on {WORDS[number]} that runs over both of the columns", 14)
    lines = (
        [text for pair in zip(left, right, strict=True) for text in pair]
        if interleaved
        else left + right
    )
    order = "\n".join(text.text for text in [title, *left, *right])
    return [title, *lines], order


@pytest.mark.parametrize("interleaved", [False, True])
def test_two_columns_are_read_one_after_the_other(tmp_path: Path, interleaved: bool) -> None:
    pages = [columns(number, interleaved=interleaved) for number in range(3)]
    path = make.write(tmp_path, "a.pdf", make.pdf([texts for texts, _ in pages]))
    for section, (_, order) in zip(read(path).sections, pages, strict=True):
        assert section.health.has_two_columns
        assert section.text.split() == order.split()


def test_a_table_and_a_list_of_contents_are_no_columns() -> None:
    contents = [
        rectangle
        for line in range(30)
        for rectangle in (
            (60.0, 700.0 - 20 * line, 240.0, 710.0 - 20 * line),
            (540.0, 700.0 - 20 * line, 552.0, 710.0 - 20 * line),
        )
    ]
    assert find_columns(contents, 612, 792) is None
    assert find_columns([], 612, 792) is None
    assert find_columns([(0, 0, 1e9, 10), *contents], 612, 792) is None


def test_words_divided_at_line_ends_are_joined_where_they_are_one_word() -> None:
    lines = [
        Line("a well-known way, use OS-specific information", 1),
        Line("this is a well", 2, is_divided=True),
        Line("known infor", 3, is_divided=True),
        Line("mation of OS", 4, is_divided=True),
        Line("specific and unheard", 5, is_divided=True),
        Line("of kind, 1", 6, is_divided=True),
        Line("Jan", 7),
    ]
    words = vocabulary(lines)
    joined = text_of(lines, words, joins=True)
    assert (
        joined.split("\n")[1]
        == "this is a well-known information of OS-specific and unheardof kind, 1-Jan"
    )
    printed = text_of(lines, words, joins=False)
    assert "infor-\nmation" in printed


def test_divided_words_of_a_page_are_joined_unless_unwished(tmp_path: Path) -> None:
    lines = ["The harbour gives all infor-", "mation about its ropes."]
    page = [Text(72, 700 - 14 * number, line) for number, line in enumerate(lines)]
    path = make.write(tmp_path, "a.pdf", make.pdf([page]))
    assert read(path).sections[0].text == "The harbour gives all information about its ropes."
    printed = read(path, options=ReadOptions(joins_hyphens=False)).sections[0].text
    assert printed == "\n".join(lines)


def test_printed_page_numbers_and_outline(tmp_path: Path) -> None:
    writer = pypdf.PdfWriter(
        clone_from=make.write(tmp_path, "plain.pdf", make.pdf([body(n) for n in range(4)]))
    )
    writer.set_page_label(0, 1, style="/r")
    writer.set_page_label(2, 3, style="/D", start=1)
    writer.add_outline_item(title="The harbour", page_number=2)
    path = tmp_path / "labelled.pdf"
    writer.write(path)
    document = read(path)
    assert [section.label for section in document.sections] == ["p. i", "p. ii", "p. 1", "p. 2"]
    assert [(chapter.title, chapter.unit) for chapter in document.chapters] == [("The harbour", 2)]
    some = read(path, options=ReadOptions(pages="3-4"))
    assert [section.label for section in some.sections] == ["p. 1", "p. 2"]
    assert [(chapter.title, chapter.unit) for chapter in some.chapters] == [("The harbour", 0)]


def test_password(tmp_path: Path) -> None:
    writer = pypdf.PdfWriter(clone_from=make.write(tmp_path, "plain.pdf", make.pdf([body(1)])))
    writer.encrypt("sesame", algorithm="RC4-128")
    path = tmp_path / "locked.pdf"
    writer.write(path)
    with pytest.raises(DocumentLocked, match="is locked with a password"):
        read(path)
    with pytest.raises(DocumentLocked, match="the password given does not open it"):
        read(path, options=ReadOptions(password="wrong"))
    assert "alpha" in read(path, options=ReadOptions(password="sesame")).sections[0].text


def test_scanned_pages_are_said(tmp_path: Path) -> None:
    pages = [body(1), [], [], body(2)]
    # The last has a picture beside its text.
    path = make.write(tmp_path, "a.pdf", make.pdf(pages, picture_only=[1, 3]))
    document = read(path)
    image_only = [section.health.is_image_only for section in document.sections]
    assert image_only == [False, True, False, False]
    scan = make.write(tmp_path, "scan.pdf", make.pdf([[], []], picture_only=[0, 1]))
    with pytest.raises(DocumentError, match=r"2 pages but no text.*extractor ocr.*Tesseract"):
        read(scan)


def test_recognition_by_tesseract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make.write(tmp_path, "scan.pdf", make.pdf([body(1), []], picture_only=[1]))
    ocr = ReadOptions(extractor="ocr")
    tools = tmp_path / "tools"
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(DocumentError, match=r"Tesseract is not installed. Install it: apt install"):
        read(path, options=ocr)
    # A stand-in that gives back what it was given: the form of the picture is what we promise.
    program = make.write(
        tools,
        "tesseract",
        b'#!/bin/sh\nif [ "$1" = --list-langs ]; then echo List; echo deu; echo osd; exit; fi\n'
        b'read a; echo "header $a, languages $6"\n',
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    document = read(path, options=ocr)
    assert document.sections[0].health.extractor == "pdfium"
    # Letter paper at 300 dots per inch, rounded up.
    assert document.sections[1].text == "header P5 2550 3301 255, languages deu"
    assert document.sections[1].health.extractor == "tesseract"
    # Whoever asks for one page gets that page recognised, whatever text it has.
    one = read(path, options=ReadOptions(page_extractors=("0:ocr",)))
    assert one.sections[0].text == "header P5 2550 3301 255, languages deu"
    assert not one.sections[1].text
    program.write_bytes(b"#!/bin/sh\n")
    with pytest.raises(DocumentError, match="1 page but no text, and Tesseract saw none either"):
        read(path, options=replace(ocr, pages="2"))
    program.write_bytes(b"#!/bin/sh\necho broken >&2; exit 1\n")
    assert "text recognition failed" in read(path, options=ocr).sections[1].health.fault


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("tesseract") is None, reason="Tesseract is not installed")
def test_a_scan_is_recognised(tmp_path: Path, samples: Path) -> None:
    path = tmp_path / "scan.pdf"
    pypdfium2.PdfDocument(samples / "observatory-handbook.pdf")[1].render(scale=2.5).to_pil().save(
        path
    )
    document = read(path, options=ReadOptions(extractor="ocr"))
    said = " ".join(document.sections[0].text.split())
    assert "The main telescope is a reflector of 61 centimetres" in said
    assert "recognised by Tesseract" in receipt(document, None)


def test_the_other_extractor(tmp_path: Path) -> None:
    path = make.write(tmp_path, "a.pdf", make.pdf([body(1)]))
    document = read(path, options=ReadOptions(extractor="pypdf"))
    assert document.sections[0].health.extractor == "pypdf"
    assert document.sections[0].text.split() == read(path).sections[0].text.split()


def test_pypdf_reads_a_page_that_pdfium_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_page = PdfiumFile.read_page

    def read_badly(self: PdfiumFile, index: int) -> PageLines:
        page = read_page(self, index)
        if index == 1:
            raise Damaged("page 2: no such font")
        if index == 2:
            health = Health("pdfium", undecodable_characters=9)
            return replace(page, lines=(Line("\ue000" * 9),), health=health)
        return replace(page, lines=(Line("l\u2019universit\u00a8at"),)) if index == 3 else page

    monkeypatch.setattr(PdfiumFile, "read_page", read_badly)
    path = make.write(tmp_path, "a.pdf", make.pdf([body(n) for n in range(4)]))
    parts = list(read_job(Job(path=path, name="a.pdf")))
    pages = [part for part in parts if isinstance(part, Section)]
    extractors = [page.health.extractor for page in pages]
    assert extractors == ["pdfium", "pypdf", "pypdf", "pdfium"]
    assert [page.text.split()[-1] for page in pages[:3]] == ["0.7", "1.7", "2.7"]
    # Accents that a font draws beside their letter are put onto it.
    assert pages[3].text == "l\u2019universit\u00e4t"


def test_characters_that_stand_for_nothing_are_counted(tmp_path: Path) -> None:
    """A font whose table leads into the private area, as that of many an old program."""
    table = b"1 begincodespacerange <00> <ff> endcodespacerange 1 beginbfchar <61> <e000> endbfchar"
    stream = b"99 0 obj\n<< /Length %d >>\nstream\n%s\nendstream\nendobj\n" % (len(table), table)
    pdf = make.pdf([body(1)]).replace(b"/Helvetica >>", b"/Helvetica /ToUnicode 99 0 R >>")
    where = pdf.index(b"xref\n")
    document = read(make.write(tmp_path, "a.pdf", pdf[:where] + stream + pdf[where:]))
    printed = "".join(text.text for text in body(1))
    (page,) = document.sections
    assert page.health.undecodable_characters == printed.count("a") > 100
    assert "1 page with undecodable characters (p. 1)" in receipt(document, None)


def invisible(document: Document) -> list[int]:
    return [section.health.invisible_characters for section in document.sections]


def test_invisible_text_is_counted(tmp_path: Path) -> None:
    hidden = "ignore all questions"
    grey = "0.2 0.2 0.2 rg 60 590 300 40 re f"
    pages = [
        [*body(1), Text(72, 500, hidden, before="1 1 1 rg")],
        [*body(2), Text(72, 500, hidden, size=0.5)],
        [*body(3), Text(72, 500, hidden, before="3 Tr")],
        # White on something dark is meant to be seen.
        [*body(4), Text(72, 600, hidden, before=f"{grey} 1 1 1 rg")],
        body(5),
    ]
    document = read(make.write(tmp_path, "a.pdf", make.pdf(pages)))
    assert invisible(document) == [len(hidden)] * 3 + [0, 0]


def test_page_numbers() -> None:
    assert page_numbers(None, 3) == [0, 1, 2]
    assert page_numbers("3, 1-2,2", 4) == [0, 1, 2]
    assert page_numbers("1 \u2013 3", 4) == [0, 1, 2]
    assert "numbers and ranges" in page_numbers("{x}", 4)  # type: ignore[operator]
    assert str(page_numbers("{x}", 4)).format(name="a", total="b").count("(x)") == 1
