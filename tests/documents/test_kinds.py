"""Every kind of file is read: its words, its parts and their order."""

from __future__ import annotations

import gzip
import json
import subprocess
import zipfile
from pathlib import Path

import docx
import pytest

from app.documents import Document, read
from mom_core.errors import DocumentError
from tests.documents import make
from tests.documents.opendocument import ODP, ODT


def texts(document: Document) -> dict[str, str]:
    return {section.label: section.text for section in document.sections}


def test_word_keeps_headings_lists_and_tables(tmp_path: Path) -> None:
    document = read(make.write(tmp_path, "a.docx", make.word()))
    assert document.kind == "word"
    assert texts(document) == {
        "Harbour": "# Harbour\n\nThe harbour opens at dawn.\n\n- Ropes first\n\n"
        "Ship | Tons\nDora | 1200",
        "Weather": "# Weather\n\nWind from the west.",
    }


def test_word_text_is_read_once_and_whole(tmp_path: Path) -> None:
    """A text box is stored twice, what was moved stands at both places, formulas are other XML."""
    box = "<w:txbxContent><w:p><w:r><w:t>in a box</w:t></w:r></w:p></w:txbxContent>"
    paragraph = (
        "<w:r><w:t>beside</w:t></w:r><w:r><mc:AlternateContent>"
        f'<mc:Choice Requires="wps"><w:drawing>{box}</w:drawing></mc:Choice>'
        f"<mc:Fallback><w:pict>{box}</w:pict></mc:Fallback></mc:AlternateContent></w:r>"
        "<w:moveFrom><w:r><w:t>moved</w:t></w:r></w:moveFrom>"
        "<w:del><w:r><w:delText>deleted</w:delText></w:r></w:del>"
        "<m:oMath><m:r><m:t>a+b</m:t></m:r></m:oMath>"
        "<w:moveTo><w:r><w:t> moved</w:t></w:r></w:moveTo>"
    )
    document = read(make.write(tmp_path, "a.docx", make.word(paragraph)))
    assert document.sections[-1].text.endswith("\n\nbeside\nin a box\na+b moved")
    assert document.notes == ()


def test_comments_of_word_are_left_out_and_said(tmp_path: Path) -> None:
    file = docx.Document()
    run = file.add_paragraph("Wind from the west.").runs[0]
    file.add_comment(run, text="Is it so?", author="Ann")
    file.add_comment(run, text="It is.", author="Bob")
    file.save(str(tmp_path / "a.docx"))
    document = read(tmp_path / "a.docx")
    assert document.sections[0].text == "Wind from the west."
    assert document.notes == ("Comments in its margin were left out (2).",)


def test_slides_keep_title_table_and_notes(tmp_path: Path) -> None:
    document = read(make.write(tmp_path, "a.pptx", make.slides()))
    assert texts(document) == {
        "slide 1": "# Tides\nHigh water at noon\nPort | Height\nin a group\nNotes: Mention the moon"
    }


def test_sheets_keep_rows_and_columns(tmp_path: Path) -> None:
    document = read(make.write(tmp_path, "a.xlsx", make.sheets()))
    assert texts(document) == {"Prices": "Item | Price\nRope | 12\nNet | 3.5", "Notes": "none"}


def test_sheets_give_dates_as_people_write_them(tmp_path: Path) -> None:
    document = read(make.write(tmp_path, "a.xlsx", make.dated_sheet()))
    assert texts(document) == {"Sheet1": "2024-01-02 | 2024-01-02 15:04:00"}


def test_opendocument_text_and_slides(tmp_path: Path) -> None:
    document = read(make.write(tmp_path, "a.odt", make.opendocument("text", ODT)))
    assert texts(document) == {
        "Harbour": "# Harbour\n\nDawn  comes\tslowly.\n\n- ropes\n\nShip | Tons",
        "Weather": "# Weather\n\nWind [Note: strong].",
    }
    document = read(make.write(tmp_path, "a.odp", make.opendocument("presentation", ODP)))
    assert texts(document) == {"slide 1": "Tides\nNotes: Moon"}


def test_opendocument_cells_that_repeat_and_words_beside_the_text(tmp_path: Path) -> None:
    cell = "<table:table-cell{0}><text:p>{1}</text:p></table:table-cell>"
    aside = "<office:annotation><text:p>a comment</text:p></office:annotation>"
    content = (
        '<text:h text:outline-level="1">Notes</text:h>'
        f"<text:p>Seen{aside}.</text:p>"
        '<text:h text:outline-level="1">Notes</text:h><table:table><table:table-row>'
        + cell.format(' table:number-columns-repeated="2"', "5")
        + cell.format("", "6")
        + "</table:table-row></table:table>"
    )
    document = read(make.write(tmp_path, "a.odt", make.opendocument("text", content)))
    assert document.notes == ("Comments in its margin were left out (1).",)
    # Parts of one name are told apart, as they are cited by it.
    assert texts(document) == {
        "Notes": "# Notes\n\nSeen.",
        "Notes (2)": "# Notes\n\n5 | 5 | 6",
    }


def test_opendocument_spreadsheet(tmp_path: Path) -> None:
    table = (
        '<table:table table:name="Prices"><table:table-row><table:table-cell office:value-type='
        '"string"><text:p>Rope</text:p></table:table-cell><table:table-cell office:value-type='
        '"float" office:value="12"><text:p>12</text:p></table:table-cell></table:table-row>'
        "</table:table>"
    )
    document = read(make.write(tmp_path, "a.ods", make.opendocument("spreadsheet", table)))
    assert texts(document) == {"Prices": "Rope | 12"}


def test_book_in_the_order_of_its_spine(tmp_path: Path) -> None:
    document = read(make.write(tmp_path, "a.epub", make.book()))
    assert texts(document) == {
        "ch. 1": "# Beginning\n\nIt was a dark night.",
        "ch. 2": "# Ending\n\nThey went home.",
    }
    assert [chapter.title for chapter in document.chapters] == ["Beginning", "Ending"]


def test_html_keeps_structure_and_drops_script(tmp_path: Path) -> None:
    page = (
        '<!doctype html><html><head><meta charset="iso-8859-1"><title>T</title></head><body>'
        "<h1>Caf\xe9</h1><script>alert(1)</script><table><tr><th>a</th><th>b</th></tr><tr><td>1</td>"
        '<td>2</td></tr></table><p>See <a href="http://x">this</a>.</p></body></html>'
    )
    document = read(make.write(tmp_path, "a.txt", page.encode("latin-1")))
    text = document.sections[0].text
    assert document.kind == "html"
    assert text.startswith("# Café")
    assert "| 1 | 2 |" in text
    assert "See this." in text
    assert "alert" not in text
    assert "http" not in text


def test_html_with_characters_that_no_text_has(tmp_path: Path) -> None:
    """Found by fuzzing: the converter refuses a page with many zero bytes."""
    path = make.write(tmp_path, "a.html", b"<html><p>words" + b"\0" * 300 + b"</p></html>")
    assert read(path).sections[0].text == "words"


def test_mail_has_its_header_and_names_attachments(tmp_path: Path) -> None:
    document = read(make.write(tmp_path, "a.eml", make.MAIL))
    assert document.sections[0].text == (
        "From: Ann <ann@example.org>\nTo: bob@example.org\nSubject: Grüße\n\nSee you **at noon**."
    )
    assert [(one.path, one.reason) for one in document.left_out] == [
        ("plan.pdf", "attachment; save it and drop it by itself")
    ]


def test_mail_goes_on_behind_a_picture(tmp_path: Path) -> None:
    parts = (
        "Content-Type: text/plain\n\nBefore.\n",
        "Content-Type: image/png\nContent-Disposition: inline\n\nzzz\n",
        "Content-Type: text/plain\n\nBehind.\n",
        'Content-Type: text/plain\nContent-Disposition: attachment; filename="a.txt"\n\nNot.\n',
    )
    head = "From: ann@example.org\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n"
    mail = head + "".join(f"--x\n{part}" for part in parts) + "--x--\n"
    document = read(make.write(tmp_path, "a.eml", mail.encode()))
    assert document.sections[0].text == "From: ann@example.org\n\nBefore.\n\nBehind."
    assert [one.path for one in document.left_out] == ["a.txt", "unnamed image/png"]


def test_notebook_keeps_cells_and_their_output(tmp_path: Path) -> None:
    document = read(make.write(tmp_path, "a.ipynb", make.notebook()))
    assert texts(document) == {
        "cell 1": "# Title\nwords",
        "cell 2": "print(1 + 1)\n\nOutput:\n2",
    }


def test_notebook_output_is_what_a_terminal_shows(tmp_path: Path) -> None:
    said = ["\x1b[31mred\x1b[0m\r\n", "\r 10%|#\r100%|####\r\n", "do\ud800ne"]
    cell = {"cell_type": "code", "source": "x", "outputs": [{"text": said}]}
    document = read(make.write(tmp_path, "a.ipynb", json.dumps({"cells": [cell]}).encode()))
    assert texts(document) == {"cell 1": "x\n\nOutput:\nred\n100%|####\ndone"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.md", "# Head\n\ntext\n"),
        ("a.rst", "Head\n====\n"),
        ("a.tex", "\\section{Head}\n"),
        ("a.csv", 'a,b\n1,"x\ny"\n'),
        ("a.json", '{"a": [1, 2]}'),
        ("a.yaml", "a:\n  - 1\n"),
        ("a.log", "10:00 started\n"),
        ("a.py", "x = 1\n"),
        ("noname", "just words\n"),
        ("a.txt", "שלום עולם، مرحبا بالعالم\n"),
        ("b.txt", "日本語の文章です。\n"),
        ("c.txt", "🙂 👩‍👩‍👧 fine\n"),
        ("d.txt", "x"),
    ],
)
def test_text_of_any_kind_is_read_as_it_is(tmp_path: Path, name: str, content: str) -> None:
    document = read(make.write(tmp_path, name, content.encode()))
    assert [section.text for section in document.sections] == [content]
    assert document.sections[0].label == name


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "cp1251", "shift_jis", "latin-1", "cp1253"]
)
def test_text_in_other_encodings(tmp_path: Path, encoding: str) -> None:
    text = {
        "cp1251": "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 8,
        "cp1253": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. " * 8,
        "shift_jis": "日本語の文章です。今日はいい天気ですね。" * 20,
    }.get(encoding, "Über die Größe der Wälder schrieb er Bände. " * 8)
    document = read(make.write(tmp_path, "a.txt", text.encode(encoding)))
    assert document.sections[0].text == text


def test_a_few_broken_bytes_do_not_change_the_encoding(tmp_path: Path) -> None:
    content = "Größe und Länge, schöne Bäume. ".encode() * 50 + b"\xff\xfe end"
    text = read(make.write(tmp_path, "a.txt", content)).sections[0].text
    assert text.startswith("Größe und Länge")
    assert text.endswith("\ufffd\ufffd end")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_of_any_compression(tmp_path: Path, mode: str) -> None:
    files = {"p-1/a.py": b"x = 1\n", "p-1/poetry.lock": b"lock\n", "p-1/b/c.md": b"# c\n"}
    document = read(make.write(tmp_path, "p.tar", make.tarred(files, mode)))
    assert texts(document) == {"a.py": "x = 1\n", "b/c.md": "# c\n"}
    assert [(one.path, one.reason, one.text) for one in document.left_out] == [
        ("poetry.lock", "lock file", "lock\n")
    ]
    assert document.header == "Files:\na.py\nb/\n  c.md"


def test_compressed_log_is_one_text(tmp_path: Path) -> None:
    document = read(make.write(tmp_path, "a.log.gz", gzip.compress(b"started\n")))
    assert document.kind == "text"
    assert document.sections[0].text == "started\n"


def test_documents_within_a_folder_are_read_by_their_kind(tmp_path: Path) -> None:
    root = tmp_path / "files"
    make.write(root, "docs/a.docx", make.word())
    make.write(root, "docs/b.pdf", make.pdf([[make.Text(72, 700, "Hello page")]] * 2))
    make.write(root, "docs/c.xlsx", make.sheets())
    make.write(root, "docs/d.pdf", make.pdf([[]]))
    make.write(root, "n.ipynb", make.notebook())
    make.write(root, "inner.zip", make.zipped({"x.txt": "x"}))
    make.write(root, "page.html", b"<html><p>kept as source</p></html>")
    document = read(root)
    assert [section.label for section in document.sections] == [
        "inner.zip/x.txt",
        "n.ipynb cell 1",
        "n.ipynb cell 2",
        "page.html",
        "docs/a.docx Harbour",
        "docs/a.docx Weather",
        "docs/b.pdf p. 1",
        "docs/b.pdf p. 2",
        "docs/c.xlsx Prices",
        "docs/c.xlsx Notes",
        "docs/d.pdf p. 1",
    ]
    assert document.notes == ("docs/d.pdf has no text.",)
    assert document.sections[3].text == "<html><p>kept as source</p></html>"
    assert not document.left_out
    assert read(make.write(tmp_path, "files.zip", _zip_of(root))).sections == document.sections


def _zip_of(root: Path) -> bytes:
    files = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
    return make.zipped(files, zipfile.ZIP_STORED)


def test_git_checkout(tmp_path: Path) -> None:
    make.write(tmp_path, "a.py", b"x = 1\n")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    document = read(tmp_path)
    assert [section.label for section in document.sections] == ["a.py"]
    assert document.sections[0].language == "Python"
    (one,) = document.left_out
    assert one.path == ".git/"
    assert one.reason.startswith("version control (")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "save it as .docx"),
        ("a.ppt", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "save it as .pptx"),
        ("a.rtf", b"{\\rtf1 hello}", "rich text"),
        ("a.png", b"\x89PNG\r\n\x1a\n\0\0", "is a picture"),
        ("a.txt", b"\x7fELF\2\1\1\0", "is a program"),
        ("a.rar", b"Rar!\x1a\7\0", "Unpack it and drop the folder"),
        ("a.db", b"SQLite format 3\0", "is a database"),
        ("a.bin", bytes(range(256)) * 4, "is not a text file"),
        (
            "a.docx",
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"),
            "locked with a password",
        ),
    ],
)
def test_other_kinds_are_refused_with_a_way_out(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    with pytest.raises(DocumentError, match=words):
        read(make.write(tmp_path, name, content))
