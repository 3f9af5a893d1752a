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
from app.prompt.prompt import shown_label

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
_SEPARATOR = re.compile(r"[;,]|\band\b")
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
        start_character: where in the answer the quotation begins, its quotation mark included;
            of a mark alone, where the words of the mark do, without the bracket.
        end_character: where that ends, exclusive.
        mark_start_character: where the words of a quotation's mark begin; None without a mark.
        mark_end_character: where they end, exclusive.
        also_in: the names of other documents that the mark may mean as well.
    """

    mark: str | None
    document: str
    section: str
    quote: str | None
    found: bool
    start_character: int
    end_character: int
    mark_start_character: int | None = None
    mark_end_character: int | None = None
    also_in: tuple[str, ...] = ()


def find_citations(answer: str, documents: Sequence[Document]) -> list[Citation]:
    """The marks and quotations of an answer, in their order, however often they come.

    Args:
        answer: the model's.
        documents: that it was given, under names that differ.
    """
    places = _Places(documents)
    marks = [mark for match in _MARK.finditer(answer) for mark in _marked(match, places)]
    quoted: set[int] = set()
    found: list[Citation] = []
    texts: list[_Text] | None = None
    for match in _QUOTE.finditer(answer):
        quote = next(group for group in match.groups() if group is not None)
        if len(quote) not in _QUOTE_CHARACTERS or len(quote.split()) < _WORDS_MIN:
            continue
        if texts is None:
            texts = [_Text(document) for document in documents]
        mark = next(
            (one for one in marks if 0 <= one.start - match.end() <= _MARK_WITHIN_CHARACTERS), None
        )
        marked = [] if mark is None else places.find(mark.name)
        place = _search(quote, texts, marked)
        if place is not None and place not in marked:
            # The words are true and the mark beside them is not theirs: it stands for itself.
            mark = None
        if mark is not None:
            quoted.add(mark.start)
        document, section = place or ("", "")
        found.append(
            Citation(
                None if mark is None else mark.name,
                document,
                section,
                quote,
                place is not None,
                *match.span(),
                None if mark is None else mark.start,
                None if mark is None else mark.end,
            )
        )
    for mark in marks:
        if mark.start in quoted:
            continue
        named = places.find(mark.name)
        document, section = named[0] if named else ("", "")
        also_in = tuple(dict.fromkeys(other for other, _ in named if other != document))
        span = mark.start, mark.end
        found.append(
            Citation(mark.name, document, section, None, bool(named), *span, *span, also_in)
        )
    return sorted(found, key=lambda citation: citation.start_character)


@dataclass(frozen=True, slots=True)
class _Mark:
    """The name of a place, and where it stands in the answer."""

    name: str
    start: int
    end: int


class _Places:
    """All pages and files by their labels; several documents may have a page 3."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._places: dict[str, list[tuple[str, str]]] = {}
        self._order: dict[str, list[str]] = {}
        for document in documents:
            labels = [section.label for section in document.sections]
            self._order[document.name] = labels
            for label in labels:
                for shown in dict.fromkeys((label, shown_label(label))):
                    self._add(_plain(shown), (document.name, label))
                    for name in dict.fromkeys((document.name, shown_label(document.name))):
                        self._add(_plain(f"{name} {shown}"), (document.name, label))
                        self._add(_plain(f"{shown} {name}"), (document.name, label))
                        self._add(_plain(f"{shown} of {name}"), (document.name, label))

    def _add(self, plain: str, place: tuple[str, str]) -> None:
        known = self._places.setdefault(plain, [])
        # Of two parts of a document with the same label the first is meant.
        if all(document != place[0] for document, _ in known):
            known.append(place)

    def find(self, name: str) -> list[tuple[str, str]]:
        """Document and label of each place that a mark such as "p. 3" or "pp. 3-12" may mean."""
        plain = _plain(name)
        if (places := self._places.get(plain)) is not None:
            return places
        if (match := _RANGE.fullmatch(plain)) is None:
            return []
        firsts, lasts = (dict(self._places.get(match[1] + match[end], ())) for end in (2, 3))
        found = []
        for document, first in firsts.items():
            if document in lasts:
                order = self._order[document]
                start, end = order.index(first), order.index(lasts[document])
                found += [(document, label) for label in order[start : end + 1]]
        return found


def _plain(name: str) -> str:
    """A label without the differences that do not matter: "Page 12", "p.12", "p. 12"."""
    name = re.sub(r"\b(?:pages?|pp|p)\b\.?", "p.", name.casefold())
    return re.sub(r"[\s,;:()\[\]]+|(?<=\bp)\.", "", name)


def _marked(match: re.Match[str], places: _Places) -> Iterator[_Mark]:
    """The places named in brackets, which may hold brackets, as some names of files do."""
    marks = list(_names(match[1], match.start(1), places))
    if not marks:
        marks = [
            mark
            for inner in _INNER_MARK.finditer(match[1])
            for mark in _names(inner[1], match.start(1) + inner.start(1), places)
        ]
    yield from marks


def _names(inside: str, start: int, places: _Places) -> Iterator[_Mark]:
    """The places that one pair of brackets names, `inside` which begins at `start`; nothing if
    it names none."""
    pieces = [(0, len(inside))]
    if not places.find(inside):
        ends = [separator.span() for separator in _SEPARATOR.finditer(inside)]
        pieces = list(
            zip(
                [0, *(end for _, end in ends)],
                [*(begin for begin, _ in ends), len(inside)],
                strict=True,
            )
        )
    parts = []
    for begin, end in pieces:
        name = inside[begin:end].strip()
        if not places.find(name) and not _LOOKS_LIKE_A_PLACE.match(name):
            return
        begin += inside[begin:end].find(name)
        parts.append(_Mark(name, start + begin, start + begin + len(name)))
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
