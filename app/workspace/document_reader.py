"""Reads and counts the documents of the list, in threads of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from app.documents import (
    DiskCache,
    Document,
    DocumentLocked,
    Limits,
    ReadOptions,
    ReadProgress,
    extent,
    read,
    receipt,
)
from app.documents.limits import raisable_limit
from app.prompt.prompt import PromptBuilder
from app.workspace.listed_document import ListedDocument, Source
from mom_core.errors import MomError

_LOG = logging.getLogger(__name__)
_READERS = 4


class _NotWanted(Exception):
    """A document was removed, or is to be read again, while it was being read."""


class DocumentReader:
    """Keeps every listed document read and counted.

    Args:
        listed: the documents by id; changed by this and by the list.
        lock: held while they change.
        changed: called whenever anything that the page shows may have changed.
        cache: texts between runs; None keeps nothing.
    """

    def __init__(
        self,
        listed: dict[str, ListedDocument],
        lock: threading.RLock,
        changed: Callable[[], None],
        cache: DiskCache | None,
    ) -> None:
        self._listed = listed
        self._lock = lock
        self._changed = changed
        self._cache = cache
        self._builder: PromptBuilder | None = None
        self._threads = ThreadPoolExecutor(_READERS, thread_name_prefix="mom-reader")

    def close(self) -> None:
        """Ends all reading."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def use(self, builder: PromptBuilder) -> None:
        """Counts with the tokenizer of a model that was loaded."""
        with self._lock:
            self._builder = builder
            waiting = [(key, kept.turn) for key, kept in self._listed.items() if kept.document]
        for key, turn in waiting:
            self._threads.submit(self._count, key, turn)

    def wait_for_tokenizer(self) -> None:
        """Forgets all counts: another model is being loaded, and `use` will be called."""
        with self._lock:
            self._builder = None
            for kept in self._listed.values():
                kept.tokenized = None
                kept.state = replace(kept.state, tokens=None, receipt="")
        self._changed()

    def start(self, document_id: str) -> None:
        """Reads and counts a document in the background."""
        self._changed()
        turn = self._listed[document_id].turn
        self._threads.submit(self._read, document_id, turn)

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

    def _current(self, document_id: str, turn: int) -> ListedDocument | None:
        kept = self._listed.get(document_id)
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
