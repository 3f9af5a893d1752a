"""What every reader gives: a document of sections, and what was left out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DocumentKind = Literal["pdf", "text", "code"]


@dataclass(frozen=True, slots=True)
class Section:
    """A part that can be cited: one page of a PDF, one file of a codebase.

    Args:
        label: what people call it: "p. 12", "src/main.py".
        text: its text; empty for a page that has none.
    """

    label: str
    text: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file or folder that is not part of the document.

    Args:
        path: inside the folder or archive, with "/" between its parts.
        reason: why, in a few words.
    """

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Document:
    """The text of one dropped thing.

    Args:
        name: what people call it.
        kind: "pdf" (sections are pages), "code" (sections are files), "text" (one section).
        sections: all of them, in reading order.
        left_out: what was found but not read.
        notes: sentences worth showing, such as how the text was obtained.
    """

    name: str
    kind: DocumentKind
    sections: tuple[Section, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
