"""Where an answer comes from: its marks looked up, its quotations searched word for word.

Nothing here trusts the model: a mark counts only if there is such a page or file, a quotation
only if the document says it, white space and the shape of quotation marks apart.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from app.documents.document import Document

_MARK = re.compile(r"\[([^\[\]\n]{1,300})\]")
_LOOKS_LIKE_A_PLACE = re.compile(
    r"^(?:.{0,200}\b)?(?:p|pp|page|slide|cell|ch)\.?\s*[\divxlcdm]+(?:\s*[-\u2013]\s*[\divxlcdm]+)?$"
    r"|^[\w./ -]{1,200}\.\w{1,8}$",
    re.IGNORECASE,
)
_QUOTE = re.compile(
    r"\u201c([^\u201c\u201d]{12,2000})\u201d|\u201e([^\u201e\u201c\u201d]{12,2000})[\u201c\u201d]"
    r'|\u00ab([^\u00ab\u00bb]{12,2000})\u00bb|"([^"\n]{12,2000})"'
)
_WORDS_MIN = 3
_MARK_WITHIN_CHARACTERS = 60
_ELLIPSIS = re.compile(r"\s*(?:\[?(?:\.{3}|\u2026)\]?)\s*")
_SAME = str.maketrans(
    {"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"', "\u2011": "-", "\u00a0": " "}
)


@dataclass(frozen=True, slots=True)
class Citation:
    """A mark or a quotation of an answer.

    Args:
        mark: such as "p. 12", as the answer has it; None for a quotation without one.
        document: the name of the document it was found in; "" if it was not.
        section: the label of the page or file it was found on; "" if it was not.
        quote: the words quoted; None for a mark alone.
        found: whether there is such a place, or the document says these words.
    """

    mark: str | None
    document: str
    section: str
    quote: str | None
    found: bool


def find_citations(answer: str, documents: Sequence[Document]) -> list[Citation]:
    """The marks and quotations of an answer, in their order, each once.

    Args:
        answer: of the model.
        documents: that it was given.
    """
    places = _Places(documents)
    marks = [
        (match.start(), name)
        for match in _MARK.finditer(answer)
        for name in _names(match[1], places)
    ]
    quoted: set[int] = set()
    found: list[tuple[int, Citation]] = []
    texts: list[_Text] | None = None
    for match in _QUOTE.finditer(answer):
        quote = next(group for group in match.groups() if group is not None)
        if len(quote.split()) < _WORDS_MIN:
            continue
        if texts is None:
            texts = [_Text(document) for document in documents]
        near = [
            (start, name)
            for start, name in marks
            if 0 <= start - match.end() <= _MARK_WITHIN_CHARACTERS
        ]
        mark = near[0][1] if near else None
        quoted.update(start for start, _ in near[:1])
        place = _search(quote, texts)
        document, section = place or ("", "")
        found.append((match.start(), Citation(mark, document, section, quote, place is not None)))
    for start, name in marks:
        if start not in quoted:
            place = places.find(name)
            document, section = place or ("", "")
            found.append((start, Citation(name, document, section, None, place is not None)))
    found.sort(key=lambda item: item[0])
    return list(dict.fromkeys(citation for _, citation in found))


class _Places:
    """All pages and files by their labels."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._places: dict[str, tuple[str, str]] = {}
        for document in documents:
            for section in document.sections:
                place = document.name, section.label
                self._places.setdefault(_plain(section.label), place)
                self._places.setdefault(_plain(f"{document.name} {section.label}"), place)

    def find(self, name: str) -> tuple[str, str] | None:
        """Document and label of what a mark names."""
        return self._places.get(_plain(name))


def _plain(name: str) -> str:
    """A label without the differences that do not matter: "Page 12", "p.12", "p. 12"."""
    name = re.sub(r"\b(?:pages?|pp|p)\b\.?", "p.", name.casefold())
    return re.sub(r"[\s,;:()]+|(?<=\bp)\.", "", name)


def _names(inside: str, places: _Places) -> Iterator[str]:
    """The places that one pair of brackets names; nothing if it names none."""
    if places.find(inside) is not None:
        yield inside.strip()
        return
    parts = [part.strip() for part in re.split(r"[;,]|\band\b", inside)]
    if all(places.find(part) is not None or _LOOKS_LIKE_A_PLACE.match(part) for part in parts):
        yield from parts


class _Text:
    """A document as one run of words, and where each of its sections begins in it."""

    def __init__(self, document: Document) -> None:
        self.document = document
        texts = [_flat(section.text) for section in document.sections]
        self.starts = [0, *accumulate(len(text) + 1 for text in texts)][: len(texts)]
        # A quotation may run over the end of a page.
        self.text = " ".join(texts)

    def section_at(self, place: int) -> str:
        """The label of the section that a place lies in."""
        return self.document.sections[bisect_right(self.starts, place) - 1].label


def _flat(text: str) -> str:
    return " ".join(text.translate(_SAME).split())


def _search(quote: str, texts: Sequence[_Text]) -> tuple[str, str] | None:
    """Document and label of the place that says all of a quotation."""
    pieces = [piece.strip(" .,;:!?") for piece in _ELLIPSIS.split(_flat(quote))]
    pieces = [piece for piece in pieces if piece]
    for text in texts:
        start = place = text.text.find(pieces[0]) if pieces else -1
        for piece in pieces[1:]:
            start = text.text.find(piece, start) if start >= 0 else -1
        if start >= 0:
            return text.document.name, text.section_at(place)
    return None
