"""Parts of a document for the page: short, however many, and nothing else taken for ticks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.documents import Chapter, Document, Health, Section
from app.prompt.prompt import TokenizedDocument
from app.workspace.parts import Cell, cells, parts_view, run_lengths, unticked
from mom_core.errors import InvalidSetting


@given(st.lists(st.booleans(), max_size=60))
def test_ticks_survive_as_run_lengths(ticks: list[bool]) -> None:
    lengths = run_lengths(ticks)
    assert sum(lengths) == len(ticks)
    assert unticked(lengths) == [number for number, is_ticked in enumerate(ticks) if not is_ticked]


def test_a_hole_in_thousands_of_pages_is_three_numbers() -> None:
    assert run_lengths([number != 700 for number in range(2415)]) == [700, 1, 1714]


@pytest.mark.parametrize("lengths", [[-1], ["3"], [1.5], [None], [10**12], [5, 10**7]])
def test_what_is_no_run_length_is_refused(lengths: list[Any]) -> None:
    with pytest.raises(InvalidSetting, match="The ticks cannot be read"):
        unticked(lengths)


def test_cells_tell_what_goes_into_the_prompt() -> None:
    document = Document(
        "a", "pdf", (Section("p. 1", "a"), Section("p. 2", " "), Section("p. 3", "b"))
    )
    tokenized = TokenizedDocument(document, [0], [[1, 2], [3], [4, 5, 6]])
    assert cells(tokenized, frozenset({2})) == [
        Cell(2, is_chosen=True, has_text=True),
        Cell(1, is_chosen=True, has_text=False),
        Cell(3, is_chosen=False, has_text=True),
    ]


def test_parts_have_labels_chapters_and_doubts() -> None:
    assert parts_view(None, None)["labels"] == []
    sections = (
        Section("p. 1", "words"),
        Section("p. 2", " ", health=Health(is_image_only=True)),
        Section("p. 3", "more", health=Health(undecodable_characters=7)),
    )
    view = parts_view(
        Document("a.pdf", "pdf", sections, chapters=(Chapter("One", 0, 1),)), tokenized=None
    )
    assert view == {
        "unit": "page",
        "labels": ["p. 1", "p. 2", "p. 3"],
        "tokens": [0, 0, 0],
        "chapters": [["One", 0, 1]],
        "empty": [1],
        "doubts": {1: "picture without text", 2: "7 undecodable characters"},
    }
