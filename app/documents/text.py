"""Bytes to text: encodings recognised, binary files refused, control characters dropped."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from app.documents.document import Document, Section
from mom_core.errors import DocumentError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Everything below a blank but tab and line feed, the C1 controls, and lone halves of pairs,
# which no tokenizer takes.
_UNWANTED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")
_SNIFFED_BYTES = 64 * 1024


def decode_text(data: bytes) -> str | None:
    """The text in `data`, or None where it is not text."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            try:
                return clean(data.decode(encoding))
            except UnicodeDecodeError:
                return None
    if b"\0" in data[:_SNIFFED_BYTES]:
        return None
    try:
        return clean(data.decode("utf-8"))
    except UnicodeDecodeError:
        pass
    from charset_normalizer import from_bytes

    best = from_bytes(data).best()
    return None if best is None else clean(str(best))


def clean(text: str) -> str:
    """One kind of line end, no control characters but tab and line feed."""
    return _UNWANTED.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def read_text(path: Path, name: str) -> Document:
    """Reads one text file, one section.

    Raises:
        DocumentError: it is not text, or empty.
    """
    text = decode_text(path.read_bytes())
    if text is None:
        raise DocumentError(
            f"{name} is not a text file. mom-chat reads PDFs, text and source files, folders and "
            ".zip archives of them; convert it to one of these."
        )
    if not text.strip():
        raise DocumentError(f"{name} is empty: there is nothing to read in it.")
    return Document(name, "text", (Section(name, text),))
