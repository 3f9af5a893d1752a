"""The reading receipt: one line that says what of a document is in the model's context."""

from __future__ import annotations

from app.documents.document import Document

_NAMED_PAGES = 8


def receipt(document: Document, tokens: int) -> str:
    """Says how much was read, counted, cut (never anything) and found without text.

    Args:
        document: as read.
        tokens: what it adds to a prompt, counted with the model's own tokenizer.
    """
    total = len(document.sections)
    unit = {"pdf": "page", "code": "file", "text": "file"}[document.kind]
    parts = [
        f"{total:,} of {total:,} {_plural(unit, total)}",
        f"{tokens:,} {_plural('token', tokens)}",
        "nothing cut",
    ]
    silent = [section.label for section in document.sections if not section.text.strip()]
    if silent:
        named = ", ".join(silent[:_NAMED_PAGES]) + (", …" if len(silent) > _NAMED_PAGES else "")
        parts.append(f"{len(silent):,} {_plural(unit, len(silent))} without text ({named})")
    if document.left_out:
        number = len(document.left_out)
        parts.append(f"{number:,} {_plural('entry', number)} left out")
    return ", ".join(parts)


def _plural(noun: str, number: int) -> str:
    if number == 1:
        return noun
    return noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
