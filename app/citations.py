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
from app.prompt import shown_label

_MARK = re.compile(r"\[((?:[^\[\]\n]|\[[^\[\]\n]{0,300}\]){1,300})\]")
_INNER_MARK = re.compile(r"\[([^\[\]\n]{1,300})\]")
_LOOKS_LIKE_A_PLACE = re.compile(
    r"^(?:.{0,200}\b)?(?:p|pp|page|slide|cell|ch)\.?\s*[\divxlcdm]+(?:\s*[-\u2013]\s*[\divxlcdm]+)?$"
    r"|^[\w./ -]{1,200}\.\w{1,8}$",
    re.IGNORECASE,
)
_QUOTE = re.compile(
    r"\u201c([^\u201c\u201d]*)\u201d|\u201e([^\u201e\u201c\u201d]*)[\u201c\u201d]"
    r'|\u00ab([^\u00ab\u00bb]*)\u00bb|"([^"\n]*)"'
)
# Applied once the quotation marks are paired: those of short words close too.
_QUOTE_CHARACTERS = range(12, 2001)
_RANGE = re.compile(r"(.*?)([\divxlcdm]+)[-\u2013](?:p)?([\divxlcdm]+)")
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
        for name in _marked(match[1], places)
    ]
    quoted: set[int] = set()
    found: list[tuple[int, Citation]] = []
    texts: list[_Text] | None = None
    for match in _QUOTE.finditer(answer):
        quote = next(group for group in match.groups() if group is not None)
        if len(quote) not in _QUOTE_CHARACTERS or len(quote.split()) < _WORDS_MIN:
            continue
        if texts is None:
            texts = [_Text(document) for document in documents]
        near = [
            (start, name)
            for start, name in marks
            if 0 <= start - match.end() <= _MARK_WITHIN_CHARACTERS
        ]
        mark = near[0][1] if near else None
        marked = [] if mark is None else places.find_all(mark)
        place = _search(quote, texts, marked)
        document, section = place or ("", "")
        if place is None or place in marked:
            quoted.update(start for start, _ in near[:1])
        else:
            # The words are true and the mark beside them is not theirs: it stands for itself.
            mark = None
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
                for label in (section.label, shown_label(section.label)):
                    self._places.setdefault(_plain(label), place)
                    self._places.setdefault(_plain(f"{document.name} {label}"), place)
        self._order = list(dict.fromkeys(self._places.values()))

    def find(self, name: str) -> tuple[str, str] | None:
        """Document and label of what a mark names, or of the first of a range."""
        found = self.find_all(name)
        return found[0] if found else None

    def find_all(self, name: str) -> list[tuple[str, str]]:
        """Document and label of each place that a mark such as "pp. 3-12" names."""
        plain = _plain(name)
        if (place := self._places.get(plain)) is not None:
            return [place]
        if (match := _RANGE.fullmatch(plain)) is None:
            return []
        first, last = (self._places.get(match[1] + match[end]) for end in (2, 3))
        if first is None or last is None or first[0] != last[0]:
            return []
        start, end = self._order.index(first), self._order.index(last)
        return self._order[start : end + 1]


def _plain(name: str) -> str:
    """A label without the differences that do not matter: "Page 12", "p.12", "p. 12"."""
    name = re.sub(r"\b(?:pages?|pp|p)\b\.?", "p.", name.casefold())
    return re.sub(r"[\s,;:()\[\]]+|(?<=\bp)\.", "", name)


def _marked(inside: str, places: _Places) -> Iterator[str]:
    """The places named in brackets, which may hold brackets, as some names of files do."""
    names = list(_names(inside, places))
    if not names:
        names = [name for mark in _INNER_MARK.findall(inside) for name in _names(mark, places)]
    yield from names


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


def _search(
    quote: str, texts: Sequence[_Text], marked: Sequence[tuple[str, str]]
) -> tuple[str, str] | None:
    """Document and label of the place that says all of a quotation; the marked ones first."""
    pieces = [piece.strip(" .,;:!?") for piece in _ELLIPSIS.split(_flat(quote))]
    pieces = [piece for piece in pieces if piece]
    if not pieces:
        return None
    for text in texts:
        for begin, section in zip(text.starts, text.document.sections, strict=True):
            if (text.document.name, section.label) in marked:
                found = _find(pieces, text, begin)
                if found in marked:
                    return found
    return next((found for text in texts if (found := _find(pieces, text, 0))), None)


def _find(pieces: Sequence[str], text: _Text, begin: int) -> tuple[str, str] | None:
    start = place = text.text.find(pieces[0], begin)
    for piece in pieces[1:]:
        start = text.text.find(piece, start) if start >= 0 else -1
    return None if start < 0 else (text.document.name, text.section_at(place))
