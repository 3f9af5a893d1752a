"""Bytes to text: encodings recognised, binary files recognised, control characters dropped."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import BinaryIO

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Everything below a blank but tab and line feed, the C1 controls, and lone halves of pairs,
# which no tokenizer takes.
_UNWANTED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")
_CONTROLS = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f]")
_SNIFFED_BYTES = 64 * 1024
_GUESSED_BYTES = 256 * 1024
_BLOCK_BYTES = 1024 * 1024
# A text in UTF-8 with a few broken bytes is still one.
_BROKEN_SHARE = 0.1
_CONTROLS_SHARE = 0.1
_USUAL = ("cp1252", "cp1250")
_ALIKE_CHAOS = 0.02


def clean(text: str) -> str:
    """One kind of line end, no control characters but tab and line feed."""
    return _UNWANTED.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def decode_text(data: bytes) -> str | None:
    """The text in `data`, or None where it is not text."""
    try:
        return clean(data.decode("utf-8-sig")) if not _looks_binary(data) else _decode_other(data)
    except UnicodeDecodeError:
        return _decode_other(data)


def _decode_other(data: bytes) -> str | None:
    encoding = find_encoding(data[:_GUESSED_BYTES])
    return None if encoding is None else clean(data.decode(encoding, "replace"))


def decode_stream(file: BinaryIO) -> Iterator[str] | None:
    """The text of a file block by block, so that memory does not grow with it; None: no text.

    Args:
        file: at its beginning, can be rewound.
    """
    encoding = find_encoding(file.read(_GUESSED_BYTES))
    if encoding is None:
        return None
    file.seek(0)
    return _blocks(file, encoding)


def _blocks(file: BinaryIO, encoding: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    # A line end of two characters may lie across two blocks.
    held = ""
    while block := file.read(_BLOCK_BYTES):
        text = held + decoder.decode(block)
        held = "\r" if text.endswith("\r") else ""
        yield clean(text[: len(text) - len(held)])
    yield clean(held + decoder.decode(b"", True))


def find_encoding(sample: bytes) -> str | None:
    """The encoding of a text from its beginning; None where it is not text."""
    for mark, encoding in _BOMS:
        if sample.startswith(mark):
            return encoding
    if _looks_binary(sample):
        return _utf16_without_mark(sample)
    text = sample.decode("utf-8", "replace")
    # Cut in the middle of a character, the sample ends with one broken one.
    broken = text[:-1].count("\ufffd") - sample.count("\ufffd".encode())
    if broken <= _BROKEN_SHARE * sum(character > "\x7f" for character in text):
        return "utf-8"
    from charset_normalizer import from_bytes

    matches = from_bytes(sample[:_SNIFFED_BYTES])
    best = matches.best()
    if best is None:
        return None
    # Of encodings that fit alike the one that files really have.
    alike = [match for match in matches if match.chaos <= best.chaos + _ALIKE_CHAOS]
    for usual in _USUAL:
        if any(usual in match.could_be_from_charset for match in alike):
            return usual
    return best.encoding


def _looks_binary(data: bytes) -> bool:
    head = data[:_SNIFFED_BYTES]
    return b"\0" in head or len(_CONTROLS.findall(head)) > _CONTROLS_SHARE * len(head)


def _utf16_without_mark(sample: bytes) -> str | None:
    """Windows programs write it; every other byte of Western text is zero then."""
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    half = max(1, len(sample) // 2)
    for mostly, hardly, encoding in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        if mostly > 0.4 * half and hardly < 0.05 * half:
            text = sample[: 2 * half].decode(encoding, "replace")
            unwanted = len(_UNWANTED.findall(text)) + text.count("\ufffd")
            return encoding if unwanted < 0.01 * len(text) else None
    return None
