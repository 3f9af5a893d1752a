"""A page as lines of text with their height on the page."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.documents.document import NO_DOUBT, Health


@dataclass(frozen=True, slots=True)
class Line:
    """One line as the eye sees it.

    Args:
        text: without its line end.
        top_points: distance of its upper edge from the page's upper edge; None where unknown.
        is_divided: its last word goes on in the next line, and the hyphen is not in `text`.
    """

    text: str
    top_points: float | None = None
    is_divided: bool = False


@dataclass(frozen=True, slots=True)
class PageLines:
    """One page, its lines in reading order.

    Args:
        index: the page, from 0.
        height_points: the page's height.
        lines: in reading order.
        health: how well they were extracted.
    """

    index: int
    height_points: float
    lines: tuple[Line, ...] = field(repr=False)
    health: Health = NO_DOUBT
