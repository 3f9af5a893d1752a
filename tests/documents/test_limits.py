"""Broken and hostile files: always a document or one of our sentences, soon."""

from __future__ import annotations

import io
import json
import os
import zlib
from pathlib import Path

import pytest

from app.documents import LeftOut, Limits, Section, parse_limits, read, stream
from app.documents.folders.collection import read_entries
from app.documents.folders.folder import FOLDER_NOT_SENT, MANIFEST
from app.documents.folders.selection import Entry
from app.documents.parsing.readers import read_file, read_job
from app.documents.parts import Job, Refused
from mom_core.errors import DocumentError, InvalidSetting
from tests.documents import make
from tests.documents.bodies import body

BOMB_XML = (
    b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(
        b'<!ENTITY %c "&%c;&%c;&%c;&%c;&%c;&%c;">' % ((98 + n,) + (97 + n,) * 6) for n in range(9)
    )
    + b"]><office>&j;</office>"
)


def cyclic_pdf() -> bytes:
    """Its tree of pages is its own child."""
    pdf = make.pdf([body(1)])
    return pdf.replace(b"/Kids [6 0 R]", b"/Kids [2 0 R]")


def described_pdf() -> bytes:
    """Its description (XMP) is XML that grows without end, packed so that it is small."""
    packed = zlib.compress(BOMB_XML + b" " * 20_000_000, 9)
    metadata = b"<< /Type /Metadata /Subtype /XML /Filter /FlateDecode /Length %d >>\nstream\n"
    pdf = make.pdf([body(1)]).replace(b"/Type /Catalog", b"/Type /Catalog /Metadata 99 0 R")
    where = pdf.index(b"xref\n")
    content = b"99 0 obj\n" + metadata % len(packed) + packed + b"\nendstream\nendobj\n"
    # Its table is wrong by now, which readers mend by looking for all objects.
    return pdf[:where] + content + pdf[where:]


def claiming_pdf() -> bytes:
    """It says that it has two thousand million pages."""
    return make.pdf([body(1)]).replace(b"/Count 1 ", b"/Count 2000000000 ")


def nested_html(depth: int) -> bytes:
    return b"<html>" + b"<div>" * depth + b"deep" + b"</div>" * depth


BROKEN = {
    "truncated.pdf": (make.pdf([body(1)] * 3)[:700], "damaged or not a PDF"),
    "zero.pdf": (make.pdf([]), "no pages"),
    "truncated.docx": (make.word()[:-300], "damaged"),
    "empty.docx": (make.zipped({"[Content_Types].xml": "<Types/>", "word/x": ""}), "damaged"),
    "no.xlsx": (
        make.zipped({"[Content_Types].xml": "<Types/>", "xl/workbook.xml": "<x/>"}),
        "spreadsheet",
    ),
    "no.epub": (make.zipped({"mimetype": "application/epub+zip"}), "damaged"),
    "bad.ipynb": (b'{"cells": 3}', "notebook"),
    "deep.ipynb": (b"[" * 200_000, "notebook"),
    "odd.eml": (b"\n\n", "no e-mail"),
    "broken.zip": (make.zipped({"a.txt": "x" * 999})[:-40], "cannot be unpacked"),
    "broken.tar.gz": (make.tarred({"a.txt": b"x" * 9999})[:-30], "cannot be unpacked"),
    "empty.zip": (make.zipped({}), "holds no text file"),
}
# These may be read or refused, but neither crash nor hang.
HOSTILE = {
    "cyclic.pdf": cyclic_pdf(),
    "described.pdf": described_pdf(),
    "claiming.pdf": claiming_pdf(),
    "bomb.odt": make.zipped(
        {"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": BOMB_XML}
    ),
    "deep.html": nested_html(100_000),
    "text.pdf": b"only words",
    "byte.txt": b"x",
    "byte.pdf": b"%",
    "invalid.txt": b"\xff" * 300,
    "spaces.md": b" " * 1_000_000,
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_get_a_sentence(tmp_path: Path, name: str) -> None:
    content, words = BROKEN[name]
    with pytest.raises(DocumentError, match=words) as refusal:
        read(make.write(tmp_path, name, content))
    assert name in str(refusal.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_neither_crash_nor_hang(tmp_path: Path, name: str) -> None:
    # The limit on seconds ends what hangs with a sentence of its own.
    words = ""
    try:
        sections = read(make.write(tmp_path, name, HOSTILE[name])).sections
    except DocumentError as refusal:
        words = str(refusal)
    else:
        assert sections
    assert "took longer than" not in words


def test_a_hundred_thousand_empty_pages_are_refused_at_once(tmp_path: Path) -> None:
    number = Limits().pages + 1
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] >>"
    kids = b" ".join(b"%d 0 R" % n for n in range(3, number + 3))
    pages = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (number, kids)
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", pages, *[page] * number]
    numbered = (b"%d 0 obj\n%s\nendobj\n" % (n, one) for n, one in enumerate(objects, 1))
    content = b"%PDF-1.4\n" + b"".join(numbered) + b"trailer\n<< /Root 1 0 R >>\n%%EOF\n"
    reading = stream(make.write(tmp_path, "empty.pdf", content))
    with pytest.raises(DocumentError, match=r"has 100,?001 pages; at most 100,?000 are read"):
        # Not one page is read before.
        assert not any(progress.sections for progress in reading)


def test_a_pdf_cut_short_still_gives_what_is_there(tmp_path: Path) -> None:
    whole = make.pdf([body(1), body(2)])
    path = make.write(tmp_path, "a.pdf", whole[: whole.rindex(b"xref")])
    assert "line 1.0" in read(path).sections[0].text


def test_empty_folder_and_file(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="holds no text file"):
        read(tmp_path)
    with pytest.raises(DocumentError, match="is empty"):
        read(make.write(tmp_path, "a.pdf", b""))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(pages=2), "has 3 pages; at most 2 are read. Split it, or --limit pages=N"),
        (Limits(file_mb=0), "at most 0 MB are read. Split it, or --limit file_mb=N"),
    ],
)
def test_limits_of_pdfs(tmp_path: Path, limits: Limits, words: str) -> None:
    path = make.write(tmp_path, "a.pdf", make.pdf([body(n) for n in range(3)]))
    with pytest.raises(DocumentError, match=words):
        read(path, limits=limits)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(files=2, ratio=10_000), "holds 3 files; at most 2 are read.*--limit files=N"),
        (
            Limits(unpacked_mb=1, ratio=10_000),
            "unpacks to far more than it should.*--limit unpacked_mb=N",
        ),
        (Limits(ratio=10), "unpacks to far more than it should.*--limit ratio=N"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_limits_of_archives(tmp_path: Path, limits: Limits, words: str, kind: str) -> None:
    files = {f"{n}.txt": (b"%d words\n" % n) * 200_000 for n in range(3)}
    content = make.zipped(dict(files)) if kind == "zip" else make.tarred(files)
    if kind != "zip" and "files" in words:
        words = words.replace("3 files", "more than 2 files")
    with pytest.raises(DocumentError, match=words):
        read(make.write(tmp_path, f"a.{kind}", content), limits=limits)


def test_a_text_may_be_too_large(tmp_path: Path) -> None:
    path = make.write(tmp_path, "a.txt", b"words\n" * 400_000)
    with pytest.raises(DocumentError, match=r"a text of 2 MB; at most 1 MB .*--limit text_mb=N"):
        read(path, limits=Limits(text_mb=1))


def test_a_file_among_others_may_be_too_large(tmp_path: Path) -> None:
    """By the size that is told, and by what comes where that was a lie."""
    entries = [
        Entry("told.txt", 2_000_000, lambda: io.BytesIO(b"words\n" * 400_000)),
        Entry("lies.txt", 10, lambda: io.BytesIO(b"words\n" * 400_000)),
        Entry("small.txt", 10, lambda: io.BytesIO(b"words")),
    ]
    job = Job(path=tmp_path, name="a", limits=Limits(member_mb=1))
    parts = list(read_entries(job, entries, read_file))
    assert [part.label for part in parts if isinstance(part, Section)] == ["small.txt"]
    assert [part for part in parts if isinstance(part, LeftOut)] == [
        LeftOut(name, "larger than 1 MB; --limit member_mb=N on the command line allows more")
        for name in ("told.txt", "lies.txt")
    ]


def uploaded(folder: Path, names: list[str]) -> Path:
    """Files of an upload, stored under numbers beside the list of their names."""
    make.write(folder, MANIFEST, json.dumps(names).encode())
    for number in range(len(names)):
        make.write(folder, str(number), b"words")
    return folder


def test_a_folder_may_hold_too_many_files(tmp_path: Path) -> None:
    names = ["a.txt", "b.txt", "c.txt"]
    for name in names:
        make.write(tmp_path / "p", name, b"words")
    words = "holds more than 2 files; at most 2 are read.*--limit files=N"
    with pytest.raises(DocumentError, match=words):
        read(tmp_path / "p", limits=Limits(files=2))
    upload = uploaded(tmp_path / "u", names)
    assert len(read(upload, "u", is_upload=True).sections) == 3
    with pytest.raises(DocumentError, match="u holds 3 files; at most 2 are read"):
        read(upload, "u", limits=Limits(files=2), is_upload=True)


def test_a_folder_that_the_page_did_not_send_is_named(tmp_path: Path) -> None:
    upload = uploaded(
        tmp_path, ["a.txt", f"web/node_modules/{FOLDER_NOT_SENT}", f"b/{FOLDER_NOT_SENT}"]
    )
    document = read(upload, "u", is_upload=True)
    assert [section.label for section in document.sections] == ["a.txt", f"b/{FOLDER_NOT_SENT}"]
    assert document.left_out == (LeftOut("web/node_modules/", "installed packages, not uploaded"),)


def test_an_office_file_may_be_a_bomb(tmp_path: Path) -> None:
    content = make.zipped({"[Content_Types].xml": "x", "word/document.xml": b" " * 3_000_000})
    path = make.write(tmp_path, "a.docx", content)
    # In this process, as the other one could not begin with so little memory.
    (refused,) = read_job(Job(path=path, name="a.docx", limits=Limits(memory_mb=8)))
    assert isinstance(refused, Refused)
    assert "unpacks to 3 MB in 2 parts; at most 4,096 MB and 200 times" in refused.sentence
    assert "--limit ratio=N" in refused.sentence


def test_xml_cannot_fetch_or_grow(tmp_path: Path) -> None:
    secret = make.write(tmp_path, "secret.txt", b"from outside")
    content = (
        '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY grown "from within">'
        f'<!ENTITY fetched SYSTEM "{secret.as_uri()}">]>'
        '<o:document-content xmlns:o="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
        'xmlns:t="urn:oasis:names:tc:opendocument:xmlns:text:1.0"><o:body><o:text>'
        "<t:p>begins &grown; &fetched; ends</t:p></o:text></o:body></o:document-content>"
    )
    kind = "application/vnd.oasis.opendocument.text"
    path = make.write(tmp_path, "a.odt", make.zipped({"mimetype": kind, "content.xml": content}))
    text = read(path).sections[0].text
    assert text.startswith("begins")
    assert text.endswith("ends")
    assert "from" not in text


def test_a_book_that_is_protected(tmp_path: Path) -> None:
    files = {
        "mimetype": "application/epub+zip",
        "META-INF/rights.xml": "<rights/>",
        "META-INF/encryption.xml": "<encryption/>",
    }
    with pytest.raises(DocumentError, match=r"protected against copying \(DRM\)"):
        read(make.write(tmp_path, "a.epub", make.zipped(dict(files))))


def locked(content: bytes, number: int) -> bytes:
    """A .zip of which the first files say that they are encrypted."""
    data = bytearray(content)
    place = 0
    for _ in range(number):
        place = data.index(b"PK\1\2", place) + 8
        data[place] |= 1
    return bytes(data)


def test_locked_files_of_an_archive(tmp_path: Path) -> None:
    content = make.zipped({"a.txt": "first", "b.txt": "second"})
    document = read(make.write(tmp_path, "a.zip", locked(content, 1)))
    assert [section.label for section in document.sections] == ["b.txt"]
    assert [(one.path, one.reason) for one in document.left_out] == [
        ("a.txt", "locked with a password")
    ]
    with pytest.raises(DocumentError, match=r"is locked with a password. Unpack it, and drop"):
        read(make.write(tmp_path, "b.zip", locked(content, 2)))


def test_pipes_and_names_that_are_no_text(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    make.write(tmp_path, "a.txt", b"a")
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"e")
    document = read(tmp_path)
    assert [section.label for section in document.sections] == ["a.txt", "caf\ufffd.txt"]
    assert [(one.path, one.reason) for one in document.left_out] == [("pipe", "not a regular file")]


def test_settings_of_limits() -> None:
    assert parse_limits(["pages=5", "ratio=7"]) == Limits(pages=5, ratio=7)
    with pytest.raises(InvalidSetting, match="no limit 'page'; it must be one of file_mb"):
        parse_limits(["page=5"])
    with pytest.raises(InvalidSetting, match="whole number of at least 1"):
        parse_limits(["pages=0"])


@pytest.mark.parametrize("name", ["a.html", "a.ipynb", "a.eml"])
def test_what_must_be_read_whole_has_a_limit_of_its_own(tmp_path: Path, name: str) -> None:
    path = make.write(tmp_path, name, b"{" + b" " * 1024 * 1024)
    words = "of more than 1 MB, and such a file has to be read whole.*--limit member_mb=N"
    with pytest.raises(DocumentError, match=words):
        read(path, limits=Limits(member_mb=1))


def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs the tests may read everything: the system's word is what counts."""
    path = make.write(tmp_path / "p", "locked.txt", b"words")
    make.write(tmp_path / "p", "open.txt", b"words")

    def denied(place: Path, mode: int) -> bool:
        return Path(place).name != "locked.txt"

    monkeypatch.setattr(os, "access", denied)
    parts = list(read_job(Job(path=tmp_path / "p", name="p")))
    assert LeftOut("locked.txt", "may not be read") in parts
    assert [part.label for part in parts if isinstance(part, Section)] == ["open.txt"]
    monkeypatch.setattr(Path, "open", raise_denied)
    (refused,) = read_job(Job(path=path, name="locked.txt"))
    assert refused == Refused("locked.txt may not be read: permission was denied.")


def raise_denied(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")
