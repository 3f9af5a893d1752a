"""The reading receipt: one line that says what of a document is in the model's context."""

from __future__ import annotations

from collections.abc import Sequence

from app.documents.document import UNITS, Document, Section
from app.documents.secrets import secret_in_section
from app.documents.wording import count

_NAMED = 8
_UNDECODABLE_SHARE = 0.02


def receipt(document: Document, tokens: int | None) -> str:
    """Says how much was read, counted, cut (never anything) and what is doubtful about it.

    Args:
        document: as read.
        tokens: what it adds to a prompt, counted with the model's own tokenizer; None if that
            is not here.
    """
    sections = document.sections
    whole, unit = _whole(document)
    parts = [f"{whole:,} of {extent(document)}"]
    parts += [] if tokens is None else [count(tokens, "token")]
    parts += ["nothing cut"]
    parts += _doubts(sections, unit)
    dropped = sum(section.health.running_characters > 0 for section in sections)
    if dropped:
        parts.append(f"running headers and footers left out on {count(dropped, unit)}")
    secrets = [section for section in sections if secret_in_section(document, section)]
    if secrets:
        parts.append(
            f"WARNING: probable secrets in {count(len(secrets), unit)} ({_named(secrets)})"
        )
    if document.left_out:
        parts.append(f"{count(len(document.left_out), 'entry')} left out")
    return ", ".join([*parts, *document.notes])


def extent(document: Document) -> str:
    """ "8 pages", "3 files"; of a folder with a PDF of six pages "3 files in 8 parts"."""
    total = len(document.sections)
    whole, unit = _whole(document)
    words = count(whole, UNITS[document.kind])
    return words if whole == total else f"{words} in {count(total, unit)}"


def _whole(document: Document) -> tuple[int, str]:
    """How many pages or files it is made of, and what its sections are called."""
    sections = document.sections
    files = len({section.path for section in sections})
    if document.kind == "code" and files < len(sections):
        return files, "part"
    return len(sections), UNITS[document.kind]


def _doubts(sections: Sequence[Section], unit: str) -> list[str]:
    """What may be wrong with the text, each with the sections it was seen in."""
    seen = {
        "without text": [s for s in sections if not s.text.strip() and not s.health.fault],
        "not readable": [s for s in sections if s.health.fault],
        "with undecodable characters": [
            s
            for s in sections
            if s.health.undecodable_characters > _UNDECODABLE_SHARE * max(1, len(s.text))
        ],
        "with invisible text": [s for s in sections if s.health.invisible_characters],
    }
    doubts = [
        f"{count(len(found), unit)} {words} ({_named(found)})"
        for words, found in seen.items()
        if found
    ]
    columns = sum(section.health.has_two_columns for section in sections)
    recognised = sum(section.health.extractor == "tesseract" for section in sections)
    if columns:
        doubts.append(f"two columns on {count(columns, unit)}")
    if recognised:
        doubts.append(f"text of {count(recognised, unit)} recognised by Tesseract")
    return doubts


def _named(sections: Sequence[Section]) -> str:
    named = [section.label for section in sections[:_NAMED]]
    return ", ".join(named) + (", …" if len(sections) > _NAMED else "")
