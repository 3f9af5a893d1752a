"""The list of documents, for the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from app import wording
from app.ui.views import documents_wording
from app.ui.views.memory import percent_of
from app.workspace.document_state import DocumentState

_LARGEST_NAMED = 3


def documents_view(
    documents: Sequence[DocumentState],
    context_window_tokens: int | None,
    largest_parts: Callable[[int], list[tuple[str, int]]] = lambda number: [],
    fits_best_parts: bool = False,
) -> dict[str, Any]:
    """The list of documents, each with its share of the context window.

    Args:
        documents: all.
        context_window_tokens: None until the model is known.
        largest_parts: names those that may be unticked; asked only when there is too much.
        fits_best_parts: whether the person has chosen the shortcut.
    """
    total = sum(document.tokens or 0 for document in documents)
    is_too_much = context_window_tokens is not None and total >= context_window_tokens
    rows = [
        {
            "id": document.id,
            "name": document.name,
            "facts": documents_wording.document_facts(document, context_window_tokens),
            "progress": _progress(document),
            "receipt": document.receipt,
            "left_out": document.left_out,
            "is_locked": document.is_locked,
            "can_raise": document.can_raise,
            "extractor": document.extractor,
            "is_folder": document.is_folder,
            "has_parts": document.tokens is not None,
            "revision": document.revision,
            "choice": document.choice,
            "error": document.error,
            "drops_running_lines": document.options.drops_running_lines,
            "joins_hyphens": document.options.joins_hyphens,
            "include": list(document.options.include),
            "exclude": list(document.options.exclude),
        }
        for document in documents
    ]
    return {
        "rows": rows,
        "total": wording.total_tokens(total, context_window_tokens) if total else "",
        "advice": wording.too_much(largest_parts(_LARGEST_NAMED)) if is_too_much else "",
        "percent": percent_of(total, context_window_tokens),
        "is_too_much": is_too_much,
        "fits_best_parts": fits_best_parts,
        "window_tokens": context_window_tokens,
    }


def _progress(document: DocumentState) -> float | None:
    """In percent while it is read, None before and after."""
    done, units = document.progress
    is_read = bool(document.sections or document.error)
    return None if is_read or not units else round(100 * done / units, 1)
