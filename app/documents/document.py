"""What every reader gives: a document of sections, and what was left out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

DocumentKind = Literal[
    "pdf", "word", "slides", "sheets", "book", "html", "mail", "notebook", "text", "code"
]
KINDS: tuple[DocumentKind, ...] = get_args(DocumentKind)

# What one section of each kind is.
UNITS: dict[DocumentKind, str] = {
    "pdf": "page",
    "word": "part",
    "slides": "slide",
    "sheets": "sheet",
    "book": "chapter",
    "html": "file",
    "mail": "file",
    "notebook": "cell",
    "text": "file",
    "code": "file",
}


@dataclass(frozen=True, slots=True)
class Health:
    """How well the text of a section could be taken out of its file.

    Args:
        extractor: which program gave the text: "pdfium", "pypdf", "tesseract"; "" if there is
            only one.
        undecodable_characters: glyphs that stand for no known character.
        invisible_characters: drawn white, transparent or too small to be read.
        is_image_only: there are pictures but no text.
        has_two_columns: a gutter runs down the page.
        running_characters: headers and footers that were left out.
        fault: a sentence when something went wrong with this section, "" otherwise.
    """

    extractor: str = ""
    undecodable_characters: int = 0
    invisible_characters: int = 0
    is_image_only: bool = False
    has_two_columns: bool = False
    running_characters: int = 0
    fault: str = ""


NO_DOUBT = Health()


@dataclass(frozen=True, slots=True)
class Section:
    """A part that can be cited: one page of a PDF, one file of a codebase.

    Args:
        label: what people call it: "p. 12", "src/main.py".
        text: its text; empty for a page that has none.
        path: the file it lies in, within a folder or archive; "" elsewhere.
        language: the source code's; "" for other text.
        health: how well the text was extracted.
    """

    label: str
    text: str = field(repr=False)
    path: str = ""
    language: str = ""
    health: Health = NO_DOUBT


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file or folder that is not part of the document.

    Args:
        path: inside the folder or archive, with "/" between its parts.
        reason: why, in a few words.
        can_be_put_back: whether it may be read when the person says so.
        text: a text file's, or all texts of a small folder, for counting
            tokens; None otherwise.
        tokens: what it would add; None until counted, and for large and binary files.
    """

    path: str
    reason: str
    can_be_put_back: bool = False
    text: str | None = field(default=None, repr=False, compare=False)
    tokens: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Chapter:
    """An entry of a PDF's outline.

    Args:
        title: as the outline has it.
        level: 0 for the outermost.
        unit: the page it begins on, counted from 0.
    """

    title: str
    level: int
    unit: int


@dataclass(frozen=True, slots=True)
class Document:
    """The text of one dropped thing.

    Args:
        name: what people call it.
        kind: decides what a section is (`UNITS`).
        sections: all of them, in reading order.
        left_out: what was found but not read.
        notes: sentences worth showing, such as how the text was obtained.
        header: what stands before the first section, such as the tree of a codebase.
        chapters: its outline; `unit` counts sections.
    """

    name: str
    kind: DocumentKind
    sections: tuple[Section, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    header: str = ""
    chapters: tuple[Chapter, ...] = ()
