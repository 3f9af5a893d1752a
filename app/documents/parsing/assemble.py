"""Parts, in whatever order the processes give them, put together to a `Document`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from app.documents.document import UNITS, Chapter, Document, DocumentKind, LeftOut, Section
from app.documents.formats.pdf import INSTALL_RECOGNITION
from app.documents.parts import Job, More, Note, Part
from app.documents.tree import tree_header
from app.documents.wording import count
from mom_core.errors import DocumentError

# Of what was left out, in a sentence.
_NAMED = 3


class Assembly:
    """What is known of a document so far."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.kind: DocumentKind | None = None
        self._units: dict[int, list[Section]] = {}
        self._left_out: dict[str, LeftOut] = {}
        self._chapters: dict[Chapter, None] = {}
        self._notes: dict[str, None] = {}
        self._fresh: list[tuple[int, Section]] = []

    @property
    def done(self) -> int:
        """Units that were given."""
        return len(self._units)

    def add(self, unit: int, parts: Sequence[Part]) -> None:
        """All of one unit."""
        if unit in self._units:
            return
        sections: list[Section] = []
        texts: list[list[str]] = []
        for part in parts:
            match part:
                case Section():
                    sections.append(part)
                    texts.append([part.text])
                case More() if texts:
                    texts[-1].append(part.text)
                case _:
                    self.add_beside(part)
        self._units[unit] = [
            section if len(pieces) == 1 else replace(section, text="".join(pieces))
            for section, pieces in zip(sections, texts, strict=True)
        ]
        self._fresh += [(unit, section) for section in self._units[unit]]

    def add_beside(self, part: Part) -> None:
        """What belongs to no unit. A process that continues for another sends it again."""
        match part:
            case LeftOut():
                self._left_out.setdefault(part.path, part)
            case Chapter():
                self._chapters.setdefault(part)
            case Note():
                self._notes.setdefault(part.sentence)

    def take_fresh(self) -> tuple[tuple[int, Section], ...]:
        """The sections that came since the last call, with their units."""
        fresh, self._fresh = tuple(self._fresh), []
        return fresh

    def document(self) -> Document:
        """The whole.

        Raises:
            DocumentError: there is no text in it.
        """
        assert self.kind is not None, "a document is opened before it is over"
        sections: list[Section] = []
        first: dict[int, int] = {}
        for unit in sorted(self._units):
            first[unit] = len(sections)
            sections += self._units[unit]
        if not any(section.text.strip() for section in sections):
            raise DocumentError(self._without_text(sections))
        chapters = tuple(
            replace(chapter, unit=first[chapter.unit])
            for chapter in sorted(self._chapters, key=lambda chapter: chapter.unit)
            if chapter.unit in first
        )
        header = tree_header(section.path for section in sections) if self.kind == "code" else ""
        left_out = tuple(self._left_out[path] for path in sorted(self._left_out))
        return Document(
            self._job.name,
            self.kind,
            tuple(sections),
            left_out,
            tuple(self._notes),
            header,
            chapters,
        )

    def _without_text(self, sections: Sequence[Section]) -> str:
        name, kind = self._job.name, self.kind
        if kind == "code":
            return self._without_files()
        faults = [section.health.fault for section in sections if section.health.fault]
        if faults:
            return f"{name} could not be read: {faults[0]}. Save it again, or get a fresh copy."
        if kind == "pdf":
            pages = f"{name} has {count(len(sections), 'page')} but no text"
            if self._job.options.extractor == "ocr":
                return f"{pages}, and Tesseract saw none either: there is nothing to read."
            return (
                f"{pages}: probably pictures or scans. Choose the extractor ocr (mom read "
                f"--extractor ocr), which needs Tesseract ({INSTALL_RECOGNITION})."
            )
        if kind == "text":
            return f"{name} is empty: there is nothing to read in it."
        assert kind is not None
        return (
            f"{name} has no text ({count(len(sections), UNITS[kind])}): there is nothing to read."
        )

    def _without_files(self) -> str:
        name, options = self._job.name, self._job.options
        if not self._left_out:
            return f"{name} holds no text file to read: it is empty. Choose another one."
        named = [f"{one.path} ({one.reason})" for one in self._left_out.values()][:_NAMED]
        more = len(self._left_out) - len(named)
        listed = ", ".join(named) + (f" and {more:,} more" if more else "")
        way_out = (
            "Choose other patterns (--include, --exclude)"
            if options.include or options.exclude
            else "Choose a folder with source code or texts"
        )
        if any(one.can_be_put_back for one in self._left_out.values()):
            way_out += ", or put one back (--put-back)"
        return f"{name} holds no text file to read; left out: {listed}. {way_out}."
