"""Readers: what they read, what they leave out and list, and the words of their refusals."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pypdf
import pytest

from app.documents import Document, LeftOut, ReadOptions, Section, read, receipt
from app.documents.encoding import decode_text
from mom_core.errors import DocumentError


def write_tree(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


TREE: dict[str, str | bytes] = {
    ".gitignore": "*.log\nbuild/\n!keep.log\n",
    "src/main.py": "print('hello')\n",
    "src/README.md": "read me first\n",
    "src/.gitignore": "secret.txt\n",
    "src/secret.txt": "no\n",
    "a.log": "no\n",
    "keep.log": "yes\n",
    "build/out.txt": "no\n",
    "node_modules/x/index.js": "no\n",
    "poetry.lock": "no\n",
    "logo.png": b"\x89PNG\r\n\x1a\n\0\0\0",
    "empty.txt": "",
    "app.min.js": "no\n",
}
READ = [".gitignore", "keep.log", "src/README.md", "src/.gitignore", "src/main.py"]
LEFT_OUT = {
    "a.log": "ignored by .gitignore",
    "build/": "ignored by .gitignore (1 file, 1 KB)",
    "src/secret.txt": "ignored by .gitignore",
    "node_modules/": "installed packages (1 file, 1 KB)",
    "poetry.lock": "lock file",
    "logo.png": "not text",
    "empty.txt": "empty",
    "app.min.js": "generated file",
}


def check_tree(document: Document) -> None:
    assert [section.label for section in document.sections] == READ
    assert {entry.path: entry.reason for entry in document.left_out} == LEFT_OUT
    assert document.kind == "code"


def test_folder(tmp_path: Path) -> None:
    check_tree(read(write_tree(tmp_path, TREE)))


@pytest.mark.parametrize("prefix", ["", "project-main/"])
def test_archive_reads_like_the_folder(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "code.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in TREE.items():
            archive.writestr(prefix + name, content)
    check_tree(read(path))


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("secret")
    root = write_tree(tmp_path / "in", {"a.txt": "a"})
    (root / "link.txt").symlink_to(tmp_path / "outside.txt")
    (root / "up").symlink_to(tmp_path)
    document = read(root)
    assert [section.label for section in document.sections] == ["a.txt"]
    assert {entry.path for entry in document.left_out} == {"link.txt", "up"}


def test_archive_names_that_lead_out_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("../../up.txt", "/etc/passwd", "ok.txt"):
            archive.writestr(name, "text")
    document = read(path)
    assert [section.label for section in document.sections] == ["ok.txt"]
    assert {entry.reason for entry in document.left_out} == {"its path leads out of the archive"}


def test_archive_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.txt", "0" * 7_000_000)
    with pytest.raises(DocumentError, match="unpacks to far more than it should"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"", "is empty"),
        ("a.bin", b"\0\1\2\3" * 99, "is not a text file"),
        ("a.pdf", b"%PDF-1.4 rubbish", "damaged or not a PDF"),
        ("a.zip", b"PK\x03\x04rubbish", "cannot be unpacked"),
    ],
)
def test_bad_files_get_a_sentence(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DocumentError, match=words):
        read(path)


def test_missing_file_and_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="was not found"):
        read(tmp_path / "nothing.pdf")
    with pytest.raises(DocumentError, match="holds no text file"):
        read(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings(encoding: str) -> None:
    text = "Über die Größe der Wälder schrieb er: „schön“, und füllte Bände.\n" * 5
    assert decode_text(text.encode(encoding)) == text


def test_line_ends_and_controls() -> None:
    assert decode_text(b"a\r\nb\rc\x07d\te") == "a\nb\ncd\te"


def test_pdf_pages_and_receipt(samples: Path) -> None:
    document = read(samples / "observatory-handbook.pdf")
    assert [section.label for section in document.sections] == [f"p. {n}" for n in range(1, 9)]
    assert "1,384 metres above the sea" in document.sections[0].text.replace("\n", " ")
    assert document.sections[4].text == ""
    assert receipt(document, 4120) == (
        "8 of 8 pages, 4,120 tokens, nothing cut, 1 page without text (p. 5)"
    )


def test_pdf_page_range(samples: Path) -> None:
    path = samples / "observatory-handbook.pdf"
    document = read(path, options=ReadOptions(pages="2-3, 8"))
    assert [section.label for section in document.sections] == ["p. 2", "p. 3", "p. 8"]
    for pages, words in {
        "9": "has 8 pages; give numbers from 1 to 8",
        "0": "give numbers from 1 to 8",
        "3-2": "give numbers",
        "two": 'write numbers and ranges such as "1-20,25"',
        "5": "has 1 page but no text",
    }.items():
        with pytest.raises(DocumentError, match=words):
            read(path, options=ReadOptions(pages=pages))
    with pytest.raises(DocumentError, match=r"is not a PDF.*Leave out --pages"):
        read(samples / "beekeeping-guide.md", options=ReadOptions(pages="1"))


def test_pdf_printed_page_numbers(tmp_path: Path, samples: Path) -> None:
    writer = pypdf.PdfWriter(clone_from=samples / "observatory-handbook.pdf")
    writer.set_page_label(0, 1, style="/r")
    writer.set_page_label(2, 7, style="/D", start=1)
    path = tmp_path / "labels.pdf"
    writer.write(path)
    labels = [section.label for section in read(path).sections]
    assert labels[:4] == ["p. i", "p. ii", "p. 1", "p. 2"]


def test_locked_pdf(tmp_path: Path, samples: Path) -> None:
    writer = pypdf.PdfWriter(clone_from=samples / "observatory-handbook.pdf")
    writer.encrypt("secret", algorithm="RC4-128")
    path = tmp_path / "locked.pdf"
    writer.write(path)
    with pytest.raises(DocumentError, match="locked with a password"):
        read(path)


def test_receipt_of_code() -> None:
    document = Document("x", "code", (Section("a", "text"),), left_out=(LeftOut("b", "lock file"),))
    assert receipt(document, 1) == "1 of 1 file, 1 token, nothing cut, 1 entry left out"
