"""What the page shows, as a pure function of what happened: events in, view out.

No clock, no engine, no Gradio. `RunView` is folded from a job's events; the `*_view` functions
turn state into the small JSON objects that the page's script paints. Their size depends on the
number of documents, never on the length of a document or an answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app import wording
from app.citations import Citation
from app.workspace.run_view import RunView


def run_view(view: RunView) -> dict[str, Any]:
    """The run for the page; its text travels apart, piece by piece."""
    return {
        "id": view.run_id,
        "phase": view.phase,
        "percent": round(100 * view.fraction, 1),
        "status": view.status,
        "error": view.error,
        "question": view.question,
        "is_unanswered": view.was_stopped and not view.text,
        "layer": view.layer,
        "layers": view.layers,
        "at_tokens": view.at_tokens,
        # Its figures stand under the answer.
        "is_answered": bool(view.figures),
        "turn": view.turn,
    }


def citation_view(
    citation: Citation, place_of: Callable[[str, str], tuple[str, int] | None]
) -> dict[str, Any]:
    """A citation, and the place that a click on it opens."""
    return {
        "text": wording.citation(citation),
        "found": citation.found,
        "quote": citation.quote or "",
        "place": place_of(citation.document, citation.section),
    }
