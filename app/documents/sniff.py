"""What a file is: by its bytes first, by its name only where bytes do not decide."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from app.documents.encoding import decode_text
from mom_core.errors import DocumentError

_HEAD_BYTES = 1024

_SUFFIXES = {
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".ipynb": "notebook",
    ".eml": "mail",
    ".csv": "csv",
    ".tsv": "csv",
}
# First bytes, what the file is, and the way out of it.
_REFUSED = (
    (b"{\\rtf", "a rich text (RTF) file", "Save it as .docx, .odt or PDF"),
    (b"\x89PNG", "a picture", "Put it into a PDF and read that with text recognition"),
    (b"\xff\xd8\xff", "a picture", "Put it into a PDF and read that with text recognition"),
    (b"GIF8", "a picture", "Put it into a PDF and read that with text recognition"),
    (b"\x7fELF", "a program", "Drop its source code instead"),
    (b"MZ", "a program", "Drop its source code instead"),
    (b"Rar!", "a RAR archive", "Unpack it and drop the folder"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it and drop the folder"),
    (b"SQLite format 3", "a database", "Export the tables as CSV"),
    (b"ID3", "a sound recording", "Drop its transcript instead"),
    (b"OggS", "a sound recording", "Drop its transcript instead"),
)
# Whatever the standard library raises for a broken archive.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    ValueError,
)
_COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_COMPRESSED = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"))
_ODF = {
    "application/vnd.oasis.opendocument.text": "odt",
    "application/vnd.oasis.opendocument.presentation": "odp",
    "application/vnd.oasis.opendocument.spreadsheet": "ods",
    "application/epub+zip": "epub",
}
_OOXML = {"word/": "docx", "ppt/": "pptx", "xl/": "xlsx"}


def sniff(path: Path, name: str) -> str:
    """The name of the reader for a file.

    Args:
        path: an existing regular file.
        name: shown to people; its suffix decides between kinds of text.

    Returns:
        "pdf", "docx", "pptx", "xlsx", "xls", "odt", "odp", "ods", "epub", "zip", "tar", "gzip",
        "bzip2", "xz", "html", "notebook", "mail", "csv" or "text".

    Raises:
        DocumentError: a kind that is known and not read, with the way out.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _in_zip(path)
    if head[257:262] == b"ustar":
        return "tar"
    for magic, kind in _COMPRESSED:
        if head.startswith(magic):
            return kind
    # After the archives: a PDF that lies in one begins within the first bytes too.
    if _is_pdf(head, name):
        return "pdf"
    if head.startswith(_COMPOUND):
        return _in_compound(path, name)
    for magic, what, way_out in _REFUSED:
        if head.startswith(magic) and (b"\0" in head or not magic.isalnum() or len(magic) > 3):
            raise DocumentError(f"{name} is {what}, which mom-chat does not read. {way_out}.")
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return "html" if start.startswith((b"<!doctype html", b"<html")) else "text"


def _is_pdf(head: bytes, name: str) -> bool:
    """Mail programs and printers put bytes before a PDF; a text may merely speak of its mark."""
    before, mark, _ = head.partition(b"%PDF-")
    if not mark:
        return False
    junk = before.removeprefix(b"\xef\xbb\xbf").strip()
    return not junk or name.lower().endswith(".pdf") or decode_text(junk) is None


def _in_zip(path: Path) -> str:
    """Office documents and e-books are archives too."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "mimetype" in names and archive.getinfo("mimetype").file_size < _HEAD_BYTES:
                kind = archive.read("mimetype").decode("ascii", "replace").strip()
                for mimetype, reader in _ODF.items():
                    # Templates differ from documents by a word at the end.
                    if kind.startswith(mimetype):
                        return reader
            if "[Content_Types].xml" in names:
                for folder, reader in _OOXML.items():
                    if any(name.startswith(folder) for name in names):
                        return "xls" if "xl/workbook.bin" in names else reader
    except (*_BROKEN, RuntimeError, OSError):
        # The reader of archives says what is wrong with it.
        pass
    return "zip"


def _in_compound(path: Path, name: str) -> str:
    """Office files of before 2007, and encrypted ones of today, share one container."""
    with path.open("rb") as file:
        data = file.read(4 * 1024 * 1024)
    if "EncryptedPackage".encode("utf-16-le") in data:
        raise DocumentError(
            f"{name} is locked with a password. Open it, save a copy without the password, and "
            "drop that."
        )
    if "Workbook".encode("utf-16-le") in data:
        return "xls"
    suffix = PurePosixPath(name).suffix.lower()
    modern = {".doc": ".docx", ".ppt": ".pptx", ".msg": ".eml"}.get(suffix, "PDF")
    raise DocumentError(
        f"{name} is an office file of before 2007, which mom-chat does not read. Open it in "
        f"LibreOffice or Office, save it as {modern}, and drop that."
    )
