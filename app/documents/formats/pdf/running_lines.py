"""Running headers and footers: what pages repeat at the same height, and page numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from app.documents.formats.pdf.lines import PageLines

_ZONE = 0.12
_LEVELS = 2
_HEIGHT_POINTS = 3.0
_REPEATED_MIN = 3
_SHARE_MIN = 0.2
# A line whose words change needs more pages on which its number grows.
_COUNTED_MIN = 8
# A page number at either end of a line; "2. Title" and "Section 2.3" are no page numbers.
_EDGE_NUMBER = re.compile(
    r"^[^\w.]*(\d{1,5}|[ivxlcdm]{1,9})(?![\w.):])|(?:^|(?<=[^\w.(]))(\d{1,5}|[ivxlcdm]{1,9})[^\w.)]*$",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\w.])(\d{1,5}|[ivxlcdm]{1,9})(?![\w.]\w)(?!\w)", re.IGNORECASE)
_ROMAN = re.compile(r"^m*(cm|cd|d?c{0,3})(xc|xl|l?x{0,3})(ix|iv|v?i{0,3})$", re.I)
_ROMAN_VALUES = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100, "d": 500, "m": 1000}


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A line near an edge of its page.

    Args:
        page: its index.
        number: the line on its page.
        zone: "top" or "bottom".
        top_points: its height.
        text: its words, whatever their spaces and capitals.
        pattern: the same without its numbers.
        offsets: its numbers less the page's index.
        edge_offsets: the same of those at either end.
    """

    page: int
    number: int
    zone: str
    top_points: float
    text: str
    pattern: str
    offsets: frozenset[int]
    edge_offsets: frozenset[int]


def running_lines(pages: Iterable[PageLines]) -> dict[int, frozenset[int]]:
    """For each page (by index) the numbers of those of its lines that run through the pages.

    A line counts when it stands near the upper or lower edge and, among the pages given, at least
    three and a fifth have at that height the same words, or the same words with a number that
    grows with the pages; or at least eight such a number at an end of changing words.

    Args:
        pages: neighbours, as many as may be had; some dozens are enough.
    """
    pages = list(pages)
    candidates = [candidate for page in pages for candidate in _candidates(page)]
    needed = max(_REPEATED_MIN, int(_SHARE_MIN * len(pages)))
    found: dict[int, set[int]] = {page.index: set() for page in pages}
    for zone in ("top", "bottom"):
        here = [candidate for candidate in candidates if candidate.zone == zone]
        running = [c for c in here if _is_repeated(c, here, needed) or _counts(c, here, needed)]
        heights = [(candidate.page, candidate.top_points) for candidate in running]
        levels = Counter(round(top / _HEIGHT_POINTS) for _, top in heights)
        for candidate in here:
            # A header's title beside its page number: another line at the same height.
            beside = (
                any(
                    page == candidate.page and abs(top - candidate.top_points) <= _HEIGHT_POINTS
                    for page, top in heights
                )
                and levels[round(candidate.top_points / _HEIGHT_POINTS)] >= needed
            )
            if candidate in running or beside:
                found[candidate.page].add(candidate.number)
    return {page: frozenset(numbers) for page, numbers in found.items()}


def _candidates(page: PageLines) -> Iterator[_Candidate]:
    """The lines of the outermost two heights at both edges."""
    placed = [
        (line.top_points, number, line)
        for number, line in enumerate(page.lines)
        if line.top_points is not None and line.text.strip()
    ]
    if not placed:
        return
    placed.sort(key=lambda item: item[0])
    for zone, ordered in (("top", placed), ("bottom", placed[::-1])):
        edge = 0.0 if zone == "top" else page.height_points
        level, last = 0, ordered[0][0]
        for top, number, line in ordered:
            if abs(top - last) > _HEIGHT_POINTS:
                level, last = level + 1, top
            if level >= _LEVELS or abs(top - edge) > _ZONE * page.height_points:
                break
            text = " ".join(line.text.split()).casefold()
            yield _Candidate(
                page.index,
                number,
                zone,
                top,
                text,
                _NUMBER.sub("#", text),
                _offsets(page.index, _NUMBER.findall(text)),
                _offsets(page.index, ["".join(found) for found in _EDGE_NUMBER.findall(text)]),
            )


def _offsets(page: int, words: list[str]) -> frozenset[int]:
    """Numbers less the page's place in the file."""
    offsets = set()
    for word in words:
        value = int(word) if word.isdigit() else _roman(word)
        if value is not None:
            # Roman pages are counted apart: a million keeps them from mixing with others.
            offsets.add(value - page + (0 if word.isdigit() else 1_000_000))
    return frozenset(offsets)


def _roman(word: str) -> int | None:
    if not _ROMAN.match(word):
        return None
    values = [_ROMAN_VALUES[letter] for letter in word]
    return sum(-v if v < max(values[i:]) else v for i, v in enumerate(values))


def _is_repeated(candidate: _Candidate, others: list[_Candidate], needed: int) -> bool:
    # Ornaments and rules repeat too, and say nothing either way; numbers are counted below.
    if not any(character.isalpha() for character in candidate.text):
        return False
    return _pages(candidate, others, lambda other: other.text == candidate.text) >= needed


def _counts(candidate: _Candidate, others: list[_Candidate], needed: int) -> bool:
    return any(
        _pages(
            candidate,
            others,
            lambda other, offset=offset: (
                other.pattern == candidate.pattern  # type: ignore[misc]
                and offset in other.offsets
            ),
        )
        >= needed
        for offset in candidate.offsets
    ) or any(
        _pages(candidate, others, lambda other, offset=offset: offset in other.edge_offsets)  # type: ignore[misc]
        >= max(needed, _COUNTED_MIN)
        for offset in candidate.edge_offsets
    )


def _pages(
    candidate: _Candidate, others: list[_Candidate], is_like: Callable[[_Candidate], bool]
) -> int:
    """On how many pages a line of that kind stands at the same height."""
    return len(
        {
            other.page
            for other in others
            if abs(other.top_points - candidate.top_points) <= _HEIGHT_POINTS and is_like(other)
        }
    )
