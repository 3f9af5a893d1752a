"""The documents of a conversation: read in the background, counted, chosen from, put in order.

Every method returns at once. Document text never leaves this object for the page but by page.
"""

from __future__ import annotations

import heapq
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.documents import (
    DEFAULT_LIMITS,
    DiskCache,
    Extractor,
    Limits,
    Section,
)
from app.documents.document import LeftOut
from app.documents.formats.pdf.picture import Picture, Request, draw
from app.documents.limits import raisable_limit
from app.documents.names import free_name
from app.documents.pages import page_numbers
from app.documents.wording import count
from app.outside_names import stored
from app.prompt.prompt import PromptBuilder, TokenizedDocument
from app.workspace.document_reader import DocumentReader
from app.workspace.document_state import DocumentState
from app.workspace.listed_document import ListedDocument, Source
from app.workspace.parts import Cell, cells, parts_view
from mom_core.errors import InvalidSetting

# Languages whose lines are wrapped, not numbered.
_PROSE = ("Markdown", "reStructuredText", "TeX")
_RAISED_BY = 16


class DocumentList:
    """All documents.

    Args:
        folder: of uploaded files, deleted with their document.
        changed: called whenever anything that the page shows may have changed.
        cache: of texts between runs; None keeps nothing.
        limits: of reading.
    """

    def __init__(
        self,
        folder: Path,
        changed: Callable[[], None],
        cache: DiskCache | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._folder = folder
        self._changed = changed
        self._limits = limits
        self._lock = threading.RLock()
        self._kept: dict[str, ListedDocument] = {}
        self._reader = DocumentReader(self._kept, self._lock, changed, cache)

    def close(self) -> None:
        """Ends all reading."""
        with self._lock:
            self._kept.clear()
        self._reader.close()

    def use(self, builder: PromptBuilder) -> None:
        """Counts with the tokenizer of a model that was loaded."""
        self._reader.use(builder)

    def wait_for_tokenizer(self) -> None:
        """Forgets all counts: another model is being loaded, and `use` will be called."""
        self._reader.wait_for_tokenizer()

    # Reading.

    def add(self, document_id: str, source: Source) -> None:
        """Reads and counts a document in the background.

        Args:
            document_id: chosen by the caller, unique.
            source: where it comes from; its name is changed where another document has it.
        """
        with self._lock:
            taken = {kept.source.name for kept in self._kept.values()}
            source = replace(source, name=free_name(source.name, taken))
            state = DocumentState(document_id, source.name)
            self._kept[document_id] = ListedDocument(source, state, self._limits)
        self._reader.start(document_id)

    def reread(self, document_id: str, **changes: Any) -> None:
        """Reads a document anew with other options (see `ReadOptions`).

        Raises:
            InvalidSetting: there is no such document or option.
        """
        with self._lock:
            kept = self._find(document_id)
            try:
                kept.options = replace(kept.options, **changes)
            except TypeError as fault:
                raise InvalidSetting(
                    f"There is no such way to read a document: {fault}."
                ) from fault
            kept.turn += 1
            if kept.document is not None:
                # Sections get other numbers when more of them are read.
                sections = kept.document.sections
                kept.unticked_labels = frozenset(sections[n].label for n in kept.unticked)
            kept.document = kept.tokenized = None
            kept.unticked = frozenset()
            revision = kept.state.revision
            kept.state = DocumentState(document_id, kept.source.name, revision=revision)
        self._reader.start(document_id)

    def raise_limit(self, document_id: str) -> None:
        """Reads a document anew that a limit stopped, with sixteen times as much allowed.

        Raises:
            InvalidSetting: no such document, or no limit stopped it.
        """
        with self._lock:
            kept = self._find(document_id)
            name = raisable_limit(kept.state.error)
            if name is None:
                raise InvalidSetting(f"No limit keeps {kept.source.name} from being read.")
            more = {name: getattr(kept.limits, name) * _RAISED_BY}
            kept.limits = replace(kept.limits, **more)
        self.reread(document_id)

    def reread_page(self, document_id: str, number: int, extractor: Extractor) -> None:
        """Reads a PDF anew with another extractor for one of its pages.

        Args:
            document_id: of the document.
            number: of the page, from 0.
            extractor: of its text.

        Raises:
            InvalidSetting: no such document or page.
        """
        with self._lock:
            self.section(document_id, number)
            options = self._find(document_id).options
        entry = f"{number}:{extractor}"
        self.reread(document_id, page_extractors=(*options.page_extractors, entry))

    def picture_of(self, document_id: str, number: int, width: int, words: str) -> Picture:
        """A page of a PDF as a picture; takes a moment.

        Raises:
            InvalidSetting: there is no such page, or the document has no pages to be drawn.
            DocumentError: it cannot be drawn.
        """
        with self._lock:
            self.section(document_id, number)
            kept = self._find(document_id)
            path, password = kept.source.path, kept.options.password
            is_drawable = kept.document is not None and kept.document.kind == "pdf"
        if not is_drawable or not path.is_file():
            raise InvalidSetting("Only pages of a PDF can be drawn. Its text is shown instead.")
        return draw(Request(str(path), password, number, width, words))

    def facts(self, document_id: str, number: int) -> dict[str, Any]:
        """What the viewer needs to know of a part beside its text.

        Raises:
            InvalidSetting: no such document.
        """
        with self._lock:
            kept = self._find(document_id)
            document = kept.document
            assert document is not None
            path = kept.source.path
            return {
                "document": kept.source.name,
                "number": number,
                "total": len(document.sections),
                "is_picture": document.kind == "pdf" and path.is_file() and not kept.options.pages,
                "is_code": document.kind == "code"
                or document.sections[number].language not in ("", *_PROSE),
                "is_chosen": number not in kept.unticked,
                "extractor": (kept.options.extractor_of(number) if document.kind == "pdf" else ""),
            }

    def cells(self) -> list[tuple[str, str, list[Cell]]]:
        """Id, name and parts of each document that is counted, for the token map."""
        with self._lock:
            return [
                (key, kept.source.name, cells(kept.tokenized, kept.unticked))
                for key, kept in self._kept.items()
                if kept.tokenized is not None
            ]

    def put_back(self, document_id: str, path: str) -> None:
        """Reads a document anew with something that had been left out."""
        with self._lock:
            options = self._find(document_id).options
        self.reread(document_id, put_back=(*options.put_back, path))

    def remove(self, document_id: str) -> None:
        """Forgets a document, ends its reading and deletes its uploaded files."""
        with self._lock:
            known = self._kept.pop(document_id, None)
        if known is not None and self._folder in known.source.path.parents:
            shutil.rmtree(stored(self._folder, document_id), ignore_errors=True)
        self._changed()

    def _find(self, document_id: str) -> ListedDocument:
        if document_id not in self._kept:
            raise InvalidSetting("This document is not here any more. Drop it again.")
        return self._kept[document_id]

    # Choosing.

    def choose(self, document_id: str, unticked: Sequence[int]) -> None:
        """Leaves sections out of the prompt.

        Args:
            document_id: of the document.
            unticked: numbers of sections, from 0.

        Raises:
            InvalidSetting: no such document, or nothing would be left of it.
        """
        with self._lock:
            kept = self._find(document_id)
            total = 0 if kept.document is None else len(kept.document.sections)
            out = frozenset(number for number in unticked if 0 <= number < total)
            if len(out) == total:
                raise InvalidSetting(
                    f"Nothing would be left of {kept.source.name}. Keep a part, or remove it."
                )
            kept.unticked = out
            kept.choice += 1
        self._changed()

    def choose_pages(self, document_id: str, pages: str) -> None:
        """Keeps some pages (or other sections, counted from 1) such as "1-40, 88"; "" keeps all.

        Raises:
            InvalidSetting: no such document or pages.
        """
        with self._lock:
            kept = self._find(document_id)
            sections = () if kept.document is None else kept.document.sections
            numbers = page_numbers(pages.strip() or None, len(sections))
            if isinstance(numbers, str):
                raise InvalidSetting(
                    numbers.format(name=kept.source.name, total=count(len(sections), "part"))
                )
            chosen = set(numbers)
        self.choose(document_id, [n for n in range(len(sections)) if n not in chosen])

    def put_in_order(self, document_ids: Sequence[str]) -> None:
        """Changes the order of the documents in the prompt; those not named follow."""
        with self._lock:
            first = [key for key in dict.fromkeys(document_ids) if key in self._kept]
            rest = [key for key in self._kept if key not in first]
            # In place, for the reader looks at the same documents.
            ordered = {key: self._kept[key] for key in [*first, *rest]}
            self._kept.clear()
            self._kept.update(ordered)
        self._changed()

    # What is on it.

    @property
    def is_preparing(self) -> bool:
        """Whether a document is still being read or counted."""
        with self._lock:
            return any(k.tokenized is None and not k.state.error for k in self._kept.values())

    def chosen(self) -> list[TokenizedDocument]:
        """The documents as they go into the prompt, in their order."""
        with self._lock:
            chosen = (kept.chosen() for kept in self._kept.values())
            return [one for one in chosen if one is not None]

    def states(self) -> list[DocumentState]:
        """What the page shows of each document."""
        with self._lock:
            return [kept.shown() for kept in self._kept.values()]

    def largest_parts(self, number: int) -> list[tuple[str, int]]:
        """Name and tokens of the largest parts that are ticked."""
        sizes = (
            (len(ids), place, one)
            for one in self.chosen()
            for place, ids in enumerate(one.section_ids)
        )
        largest = heapq.nlargest(number, sizes, key=lambda part: part[0])
        return [
            (_named(one.document.sections[place].label, one.document.name), tokens)
            for tokens, place, one in largest
        ]

    def parts(self, document_id: str) -> dict[str, Any]:
        """All sections of a document with their tokens; see `parts_view`.

        Raises:
            InvalidSetting: no such document.
        """
        with self._lock:
            kept = self._find(document_id)
            document, tokenized = kept.document, kept.tokenized
        return parts_view(document, tokenized)

    def ticks(self, document_id: str) -> list[bool]:
        """Of each section, whether it goes into the prompt.

        Raises:
            InvalidSetting: no such document.
        """
        with self._lock:
            kept = self._find(document_id)
            total = 0 if kept.document is None else len(kept.document.sections)
            return [number not in kept.unticked for number in range(total)]

    def left_out(self, document_id: str) -> tuple[LeftOut, ...]:
        """What was found and not read.

        Raises:
            InvalidSetting: no such document.
        """
        with self._lock:
            document = self._find(document_id).document
            return () if document is None else document.left_out

    def section(self, document_id: str, number: int) -> Section:
        """The exact text that the model sees of one section.

        Raises:
            InvalidSetting: no such document or section.
        """
        with self._lock:
            document = self._find(document_id).document
            if document is None or not 0 <= number < len(document.sections):
                raise InvalidSetting("There is no such part in this document.")
            return document.sections[number]

    def find(self, document_id: str, words: str) -> list[int]:
        """Numbers of the sections that contain some words, whatever their case.

        Raises:
            InvalidSetting: no such document.
        """
        with self._lock:
            document = self._find(document_id).document
        if document is None or not words.strip():
            return []
        wanted = " ".join(words.split()).casefold()
        return [
            number
            for number, section in enumerate(document.sections)
            if wanted in section.label.casefold()
            or wanted in " ".join(section.text.split()).casefold()
        ]

    def place_of(self, document_name: str, label: str) -> tuple[str, int] | None:
        """Document id and number of the section with this label."""
        with self._lock:
            for key, kept in self._kept.items():
                if kept.document is not None and kept.document.name == document_name:
                    for number, section in enumerate(kept.document.sections):
                        if section.label == label:
                            return key, number
        return None


def _named(label: str, document: str) -> str:
    """ "p. 3 of a.pdf"; what is a document by itself has one name."""
    return document if label == document else f"{label} of {document}"
