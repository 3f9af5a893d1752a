"""The documents of a conversation: read in the background, counted, chosen from, put in order.

Every method returns at once. Document text never leaves this object for the page but by page.
"""

from __future__ import annotations

import heapq
import logging
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.documents import (
    DEFAULT_LIMITS,
    DEFAULT_OPTIONS,
    DiskCache,
    Document,
    DocumentLocked,
    Extractor,
    Limits,
    ReadOptions,
    ReadProgress,
    Section,
    extent,
    read,
    receipt,
)
from app.documents.document import LeftOut
from app.documents.formats.pdf.picture import Picture, Request, draw
from app.documents.limits import raisable_limit
from app.documents.names import free_name
from app.documents.pages import page_numbers
from app.documents.wording import count
from app.outside_names import stored
from app.prompt.prompt import PromptBuilder, TokenizedDocument
from app.workspace.document_state import DocumentState
from app.workspace.parts import Cell, cells, parts_view
from mom_core.errors import InvalidSetting, MomError

_LOG = logging.getLogger(__name__)
_READERS = 4
# Languages whose lines are wrapped, not numbered.
_PROSE = ("Markdown", "reStructuredText", "TeX")
_RAISED_BY = 16


@dataclass(frozen=True, slots=True)
class Source:
    """Where a document comes from.

    Args:
        path: of a file or folder on this machine.
        name: shown to people.
        is_upload: `path` is a folder of numbered files beside the list of their names.
    """

    path: Path
    name: str
    is_upload: bool = False


@dataclass(slots=True)
class _ListedDocument:
    """A document and how far it is. `turn` grows whenever it is to be read anew.

    `choice` grows whenever other sections are ticked. `unticked_labels` are those that were
    unticked before.
    """

    source: Source
    state: DocumentState
    limits: Limits
    options: ReadOptions = DEFAULT_OPTIONS
    turn: int = 0
    choice: int = 0
    document: Document | None = None
    tokenized: TokenizedDocument | None = None
    unticked: frozenset[int] = frozenset()
    unticked_labels: frozenset[str] = frozenset()


class _NotWanted(Exception):
    """A document was removed, or is read anew, while it was being read."""


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
        self._cache = cache
        self._limits = limits
        self._lock = threading.RLock()
        self._kept: dict[str, _ListedDocument] = {}
        self._builder: PromptBuilder | None = None
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="mom-reader")

    def close(self) -> None:
        """Ends all reading."""
        with self._lock:
            self._kept.clear()
        self._readers.shutdown(wait=False, cancel_futures=True)

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
            self._kept[document_id] = _ListedDocument(source, state, self._limits)
        self._read_in_background(document_id)

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
        self._read_in_background(document_id)

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

    def use(self, builder: PromptBuilder) -> None:
        """Counts with the tokenizer of a model that was loaded."""
        with self._lock:
            self._builder = builder
            waiting = [(key, kept.turn) for key, kept in self._kept.items() if kept.document]
        for key, turn in waiting:
            self._readers.submit(self._count, key, turn)

    def wait_for_tokenizer(self) -> None:
        """Forgets all counts: another model is being loaded, and `use` will be called."""
        with self._lock:
            self._builder = None
            for kept in self._kept.values():
                kept.tokenized = None
                kept.state = replace(kept.state, tokens=None, receipt="")
        self._changed()

    def _read_in_background(self, document_id: str) -> None:
        self._changed()
        turn = self._kept[document_id].turn
        self._readers.submit(self._read, document_id, turn)

    def _read(self, document_id: str, turn: int) -> None:
        """In a reader's thread."""
        with self._lock:
            kept = self._current(document_id, turn)
            if kept is None:
                return
            source, options, limits = kept.source, kept.options, kept.limits
        try:
            document = self._draw(document_id, turn, source, options, limits)
        except MomError as fault:
            sentence = str(fault)
            is_locked = isinstance(fault, DocumentLocked)
            can_raise = raisable_limit(sentence) is not None
            self._update(
                document_id, turn, error=sentence, is_locked=is_locked, can_raise=can_raise
            )
            return
        except Exception as fault:  # noqa: BLE001 - one bad file must not stop the others
            _LOG.exception("A document could not be read")
            sentence = f"It cannot be read: an unexpected error ({type(fault).__name__}: {fault})."
            self._update(document_id, turn, error=sentence)
            return
        if document is None:
            return
        with self._lock:
            kept = self._current(document_id, turn)
            if kept is None:
                return
            kept.document = document
            labels = [section.label for section in document.sections]
            out = frozenset(n for n, label in enumerate(labels) if label in kept.unticked_labels)
            kept.choice += 1
            kept.unticked = out if len(out) < len(labels) else frozenset()
        self._update(
            document_id,
            turn,
            sections=extent(document),
            extractor=options.extractor if document.kind == "pdf" else "",
            is_folder=document.kind == "code",
        )
        self._count(document_id, turn)

    def _draw(
        self, document_id: str, turn: int, source: Source, options: ReadOptions, limits: Limits
    ) -> Document | None:
        """Draws the reading; None once nobody wants it any more."""

        def show(progress: ReadProgress) -> None:
            how_far = (progress.done, progress.units)
            if not self._update(document_id, turn, progress=how_far):
                raise _NotWanted

        try:
            return read(
                source.path,
                source.name,
                options,
                limits,
                is_upload=source.is_upload,
                cache=self._cache,
                on_progress=show,
            )
        except _NotWanted:
            return None

    def _count(self, document_id: str, turn: int) -> None:
        with self._lock:
            kept = self._current(document_id, turn)
            builder = self._builder
            if kept is None or kept.document is None or kept.tokenized or builder is None:
                return
            document = kept.document
        tokenized = builder.tokenize(document)
        with self._lock:
            kept = self._current(document_id, turn)
            if kept is None:
                return
            kept.document, kept.tokenized = tokenized.document, tokenized
        self._update(
            document_id,
            turn,
            receipt=receipt(document, tokenized.tokens),
            revision=kept.state.revision + 1,
        )

    def _current(self, document_id: str, turn: int) -> _ListedDocument | None:
        kept = self._kept.get(document_id)
        return kept if kept is not None and kept.turn == turn else None

    def _update(self, document_id: str, turn: int, **changes: Any) -> bool:
        with self._lock:
            kept = self._current(document_id, turn)
            if kept is None:
                return False
            state = replace(kept.state, **changes)
            is_new = state != kept.state
            kept.state = state
        if is_new:
            self._changed()
        return True

    def _find(self, document_id: str) -> _ListedDocument:
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
            self._kept = {key: self._kept[key] for key in [*first, *rest]}
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
            return [
                _chosen(kept.tokenized, kept.unticked)
                for kept in self._kept.values()
                if kept.tokenized
            ]

    def states(self) -> list[DocumentState]:
        """What the page shows of each document."""
        with self._lock:
            return [_state(kept) for kept in self._kept.values()]

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


def _chosen(tokenized: TokenizedDocument, unticked: frozenset[int]) -> TokenizedDocument:
    if not unticked:
        return tokenized
    total = len(tokenized.section_ids)
    return tokenized.reuse(frozenset(range(total)) - unticked)


def _state(kept: _ListedDocument) -> DocumentState:
    state = replace(kept.state, options=kept.options)
    if kept.tokenized is None:
        return state
    return replace(
        state,
        tokens=_chosen(kept.tokenized, kept.unticked).tokens,
        unticked=len(kept.unticked),
        left_out=len(kept.tokenized.document.left_out),
        choice=kept.choice,
    )


def _named(label: str, document: str) -> str:
    """ "p. 3 of a.pdf"; what is a document by itself has one name."""
    return document if label == document else f"{label} of {document}"
