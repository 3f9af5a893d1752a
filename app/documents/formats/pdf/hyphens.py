"""Words divided at the end of a line, put together again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from app.documents.formats.pdf.lines import Line

_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_LAST = re.compile(r"[^\W_]+(?:-[^\W_]+)*$")
_FIRST = re.compile(r"^[^\W_]+")


def vocabulary(lines: Iterable[Line]) -> frozenset[str]:
    """The whole words of some lines, compounds with their hyphens, in lower case."""
    return frozenset(
        word.lower() for line in lines if not line.is_divided for word in _WORD.findall(line.text)
    )


def text_of(lines: Sequence[Line], words: frozenset[str], *, joins: bool) -> str:
    """The text of a page.

    A divided word is joined without its hyphen, unless the pages around write it with one, or
    its parts are no word that could be divided ("OS-specific", "1-Jan").

    Args:
        lines: the page's, in order.
        words: whole words seen nearby (`vocabulary`).
        joins: False keeps lines and hyphens as they are printed.
    """
    pieces = []
    for line, following in zip(lines, [*lines[1:], Line("")], strict=False):
        pieces.append(line.text)
        if not line.is_divided:
            pieces.append("\n")
        elif not joins:
            pieces.append("-\n")
        elif not _loses_hyphen(line.text, following.text, words):
            pieces.append("-")
    return "".join(pieces)


def _loses_hyphen(before: str, after: str, words: frozenset[str]) -> bool:
    last, first = _LAST.search(before), _FIRST.match(after)
    if last is None or first is None:
        return False
    joined = (last[0] + first[0]).lower()
    if joined in words:
        return True
    if f"{last[0]}-{first[0]}".lower() in words:
        return False
    # Capitals and digits do not stand in the middle of a word.
    return first[0].islower() and last[0].isalpha() and not (len(last[0]) > 1 and last[0].isupper())
