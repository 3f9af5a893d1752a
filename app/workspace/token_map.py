"""The token map: for each document a strip of cells, one a page or file, as wide as its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.prompt.prompt import Span
from app.workspace.parts import Cell

# More cells than a strip has pixels show nothing: neighbours are put together.
CELLS_MAX = 1000
WAITING, READ, EMPTY, LEFT_OUT = "wrex"


@dataclass(frozen=True, slots=True)
class Strip:
    """A document.

    Args:
        id: names it to the server.
        name: names it to people.
        start: token of the prompt at which its first chosen part begins; 0 if none is chosen.
        group: parts a cell; above 1 only for documents of very many parts.
        tokens: of each cell.
        states: a letter a cell: "w" waiting, "r" read, "e" without text, "x" left out.
    """

    id: str
    name: str
    start: int
    group: int
    tokens: tuple[int, ...]
    states: str


def token_map(
    documents: Sequence[tuple[str, str, Sequence[Cell]]], spans: Sequence[Span], reused_tokens: int
) -> tuple[Strip, ...]:
    """Strips of all documents.

    Args:
        documents: id, name and parts of each, in the order of the prompt.
        spans: of the prompt, one for each chosen part, in order.
        reused_tokens: at the prompt's beginning, how many were read before.
    """
    strips, places = [], iter(spans)
    for document_id, name, cells in documents:
        states, start = [], None
        for cell in cells:
            if not cell.is_chosen:
                states.append(LEFT_OUT)
                continue
            span = next(places, None)
            if start is None and span is not None:
                start = span.start
            is_read = span is not None and span.end <= reused_tokens
            states.append(EMPTY if not cell.has_text else READ if is_read else WAITING)
        group = -(-len(cells) // CELLS_MAX) or 1
        strips.append(
            Strip(
                document_id,
                name,
                start or 0,
                group,
                tuple(
                    sum(cell.tokens for cell in cells[first : first + group])
                    for first in range(0, len(cells), group)
                ),
                "".join(
                    _together(states[first : first + group])
                    for first in range(0, len(states), group)
                ),
            )
        )
    return tuple(strips)


def _together(states: Sequence[str]) -> str:
    """One state for several parts: what is still to be done comes first."""
    return next(state for state in (WAITING, READ, EMPTY, LEFT_OUT) if state in states)
