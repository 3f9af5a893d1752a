"""The parts of a document as the page's tree and token map take them: short, however many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from app import wording
from app.documents import UNITS, Document
from app.prompt.prompt import TokenizedDocument
from mom_core.errors import InvalidSetting

_PARTS_MAX = 10_000_000


@dataclass(frozen=True, slots=True)
class Cell:
    """A part of a document on the token map.

    Args:
        tokens: its mark included.
        is_chosen: whether it goes into the prompt.
        has_text: whether there is any.
    """

    tokens: int
    is_chosen: bool
    has_text: bool


def cells(tokenized: TokenizedDocument, unticked: frozenset[int]) -> list[Cell]:
    """The parts of a document that is counted."""
    sections = tokenized.document.sections
    return [
        Cell(len(ids), number not in unticked, bool(section.text.strip()))
        for number, (ids, section) in enumerate(zip(tokenized.section_ids, sections, strict=True))
    ]


def parts_view(document: Document | None, tokenized: TokenizedDocument | None) -> dict[str, Any]:
    """All sections.

    Args:
        document: None while it is read.
        tokenized: None until counted.

    Returns:
        `unit` ("page"), `labels`, `tokens` (0 until counted), `chapters` as lists of title, level
        and number of the section, `empty` numbers of sections without text, and `doubts` by number.
    """
    if document is None:
        return {
            "unit": "part",
            "labels": [],
            "tokens": [],
            "chapters": [],
            "empty": [],
            "doubts": {},
        }
    sections = document.sections
    sizes = [len(ids) for ids in tokenized.section_ids] if tokenized else [0] * len(sections)
    empty = [number for number, section in enumerate(sections) if not section.text.strip()]
    without_text = set(empty)
    doubts = {
        number: words
        for number, section in enumerate(sections)
        if (words := wording.doubts(section.health, number not in without_text))
    }
    return {
        "unit": UNITS[document.kind],
        "labels": [section.label for section in sections],
        "tokens": sizes,
        "chapters": [[one.title, one.level, one.unit] for one in document.chapters],
        "empty": empty,
        "doubts": doubts,
    }


def run_lengths(ticks: Iterable[bool]) -> list[int]:
    """Run lengths, of ticked ones first: [3, 2] are three ticked and two that are not."""
    lengths = [(is_ticked, sum(1 for _ in same)) for is_ticked, same in groupby(ticks)]
    first = [] if not lengths or lengths[0][0] else [0]
    return [*first, *(length for _, length in lengths)]


def unticked(lengths: Sequence[object]) -> list[int]:
    """Numbers of the sections that run lengths leave out.

    Raises:
        InvalidSetting: they are no run lengths.
    """
    numbers: list[int] = []
    at = 0
    for place, length in enumerate(lengths):
        if not isinstance(length, int) or not 0 <= length <= _PARTS_MAX - at:
            raise InvalidSetting("The ticks cannot be read; they must be lengths of runs.")
        if place % 2:
            numbers.extend(range(at, at + length))
        at += length
    return numbers
