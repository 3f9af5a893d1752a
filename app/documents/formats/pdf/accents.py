"""Accents that a font draws beside their letter ("universit¨at") put onto it."""

from __future__ import annotations

import re
import unicodedata

_COMBINING = {
    "\u00a8": "\u0308",
    "\u00b4": "\u0301",
    "\u00b8": "\u0327",
    "\u02c6": "\u0302",
    "\u02c7": "\u030c",
    "\u02d8": "\u0306",
    "\u02da": "\u030a",
    "\u02dc": "\u0303",
    "\u02dd": "\u030b",
}
_APART = re.compile(rf"([{''.join(_COMBINING)}])([A-Za-z\u0131])")


def compose_accents(text: str) -> str:
    """The text with accented letters as one character, where such a letter exists."""
    return _APART.sub(_compose, text)


def _compose(match: re.Match[str]) -> str:
    # TeX draws an accented i without its dot.
    letter = "i" if match[2] == "\u0131" else match[2]
    composed = unicodedata.normalize("NFC", letter + _COMBINING[match[1]])
    return composed if len(composed) == 1 else match[0]
