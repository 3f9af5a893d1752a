"""Sentences about a document in the list."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.workspace.document_state import DocumentState


def being_read(done: int, units: int) -> str:
    """How far the reading is: "120 of 2,415"; "" while that is unknown."""
    return f"{done:,} of {units:,}" if units else ""


def document_facts(document: DocumentState, window_tokens: int | None) -> str:
    """ "8 pages · 4,120 tokens · 50 % of the context"."""
    if not document.sections:
        return f"reading … {being_read(*document.progress)}".rstrip()
    if document.tokens is None:
        return f"{document.sections} · tokens will be counted once the model is loaded"
    share = f" · {document.tokens / window_tokens:.0%} of the context" if window_tokens else ""
    unticked = f" · {document.unticked:,} unticked" if document.unticked else ""
    return f"{document.sections} · {document.tokens:,} tokens{share}{unticked}"
