"""One door to all readers."""

from __future__ import annotations

from pathlib import Path

from app.documents.document import Document
from mom_core.errors import DocumentError


def read(path: Path, name: str | None = None, pages: str | None = None) -> Document:
    """Reads a PDF, a text or source file, a folder, or a .zip of such files.

    What a file is, is told by its first bytes, not by its name.

    Args:
        path: on this machine.
        name: shown to people; by default the file's own.
        pages: physical pages of a PDF from 1, such as "1-20,25"; None reads all.

    Raises:
        DocumentError: it cannot be read; the message says why and what to do.
    """
    name = name or path.name or path.resolve().name
    try:
        kind = _kind(path, name)
        if pages is not None and kind != "pdf":
            raise DocumentError(f"{name} is not a PDF, so it has no pages to choose from.")
        if kind == "folder":
            from app.documents.folder import read_folder

            return read_folder(path, name)
        if kind == "pdf":
            from app.documents.pdf import read_pdf

            return read_pdf(path, name, pages)
        if kind == "zip":
            from app.documents.archive import read_archive

            return read_archive(path, name)
        from app.documents.text import read_text

        return read_text(path, name)
    except PermissionError as fault:
        raise DocumentError(f"{name} may not be read: permission was denied.") from fault
    except OSError as fault:
        raise DocumentError(f"{name} cannot be read: {fault.strerror or fault}.") from fault


def _kind(path: Path, name: str) -> str:
    if path.is_dir():
        return "folder"
    if not path.exists():
        raise DocumentError(f"{name} was not found. Check the path: {path}")
    if not path.is_file():
        raise DocumentError(f"{name} is not a regular file.")
    with path.open("rb") as file:
        head = file.read(1024)
    if b"%PDF-" in head:
        return "pdf"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    return "text"
