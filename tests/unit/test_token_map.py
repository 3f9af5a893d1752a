"""Strips of cells: what was read, what waits, and very many parts put together."""

from __future__ import annotations

from app.prompt.prompt import Span
from app.workspace.documents import Cell
from app.workspace.token_map import CELLS_MAX, token_map


def spans(*pieces: tuple[int, int]) -> list[Span]:
    return [Span(start, end, "d", "label") for start, end in pieces]


def cell(tokens: int = 10, *, is_chosen: bool = True, has_text: bool = True) -> Cell:
    return Cell(tokens, is_chosen, has_text)


def test_only_whole_parts_are_read() -> None:
    cells = [cell(), cell(), cell()]
    (strip,) = token_map([("a", "A", cells)], spans((5, 15), (15, 25), (25, 35)), 24)
    assert (strip.id, strip.name, strip.start, strip.group) == ("a", "A", 5, 1)
    assert strip.tokens == (10, 10, 10)
    assert strip.states == "rww"


def test_parts_left_out_have_no_span_and_empty_ones_do() -> None:
    cells = [cell(is_chosen=False), cell(3, has_text=False), cell()]
    (strip,) = token_map([("a", "A", cells)], spans((5, 8), (8, 18)), 18)
    assert strip.states == "xer"
    assert strip.start == 5


def test_the_next_document_goes_on_in_the_prompt() -> None:
    strips = token_map(
        [("a", "A", [cell()]), ("b", "B", [cell(is_chosen=False)]), ("c", "C", [cell(), cell()])],
        spans((0, 10), (12, 22), (22, 32)),
        22,
    )
    assert [strip.states for strip in strips] == ["r", "x", "rw"]
    assert [strip.start for strip in strips] == [0, 0, 12]


def test_without_a_prompt_all_wait() -> None:
    (strip,) = token_map([("a", "A", [cell(), cell(is_chosen=False)])], [], 0)
    assert strip.states == "wx"


def test_very_many_parts_are_put_together() -> None:
    number = 2 * CELLS_MAX + 1
    cells = [cell(2, is_chosen=n % 3 != 0) for n in range(number)]
    chosen = sum(one.is_chosen for one in cells)
    ends = [(2 * n, 2 * n + 2) for n in range(chosen)]
    (strip,) = token_map([("a", "A", cells)], spans(*ends), 2 * (chosen - 1))
    assert strip.group == 3
    assert len(strip.states) == len(strip.tokens) == -(-number // 3)
    assert sum(strip.tokens) == 2 * number
    # What still waits in a group is told, not what was read of it.
    assert strip.states == "r" * (len(strip.states) - 1) + "w"


def test_a_document_without_parts() -> None:
    (strip,) = token_map([("a", "A", [])], [], 0)
    assert (strip.states, strip.tokens, strip.group) == ("", (), 1)
