"""Answers that read nothing twice: the library in front of the engine, and behind it.

Before a run, the entry that saves most of the reading takes the place of what the engine holds;
while it reads and answers, what is new is kept in the background. A person sees none of it but the
time that is saved.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Generator, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from app.library.entry import PARTIAL, DocumentInfo, Entry, Match
from app.library.in_use import InUse
from app.library.library import Library
from mom_core.config import SamplingConfig
from mom_core.errors import OutOfMemory, SnapshotUnusable
from mom_core.events import Event

if TYPE_CHECKING:
    from app.documents import Document
    from app.prompt.prompt import Prompt
    from mom_core.engine import Engine
    from mom_core.generate.checkpoint import CheckpointWriter
    from mom_core.snapshot.manifest import Manifest

# Reading so little again takes no longer than looking for it.
MIN_TOKENS = 128
# A prompt is kept anew once this share of it is not in any entry.
_NEW_SHARE = 0.1


def document_info(document: Document) -> DocumentInfo:
    """Name and digest of a document."""
    digest = hashlib.sha256()
    for section in document.sections:
        digest.update(f"{section.label}\n{section.text}\n".encode(errors="surrogatepass"))
    return DocumentInfo(document.name, digest.hexdigest())


def generate(
    reuse: Reuse | None,
    engine: Engine,
    prompt: Prompt,
    documents: Iterable[Document],
    *,
    max_new_tokens: int,
    sampling: SamplingConfig,
    found: Found | None = None,
) -> Generator[Event, None, None]:
    """An answer of the engine's own context, with a library if there is one.

    Args:
        keeping: None neither looks for what was read before nor keeps anything.
        engine: idle.
        prompt: read and answered.
        documents: in it; asked for only if they are to be named.
        max_new_tokens: see `Engine.generate`.
        sampling: see there.
        found: what the library has for this prompt, if it was looked up already.
    """
    if reuse is None:
        return engine.generate(
            prompt.token_ids,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            boundaries=prompt.boundaries,
        )
    return reuse.generate(
        engine,
        prompt.token_ids,
        documents=map(document_info, documents),
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        boundaries=prompt.boundaries,
        found=found,
    )


@dataclass(frozen=True, slots=True)
class Found:
    """What the library has for a prompt.

    Args:
        match: None for nothing.
        is_open: whether the engine's context is that entry now.
    """

    match: Match | None
    is_open: bool = False


class Reuse:
    """One engine's answers with a library.

    Args:
        library: where to look and to keep.
        min_tokens: shorter prompts are neither looked for nor kept.

    Attributes:
        notes: sentences about entries that could not be used or kept; see `take_notes`.
    """

    def __init__(self, library: Library, *, min_tokens: int = MIN_TOKENS) -> None:
        self.library = library
        self.notes: list[str] = []
        self._min_tokens = min_tokens
        self._writers: list[tuple[CheckpointWriter, InUse]] = []
        self._told: set[CheckpointWriter] = set()
        self._in_use: InUse | None = None

    def take_notes(self) -> list[str]:
        """The sentences that were not taken yet, also of what is still being written."""
        for checkpoints, _ in self._writers:
            self._note_problem(checkpoints)
        notes, self.notes = self.notes, []
        return notes

    def look_up(self, engine: Engine, prompt_ids: Sequence[int]) -> Found:
        """What the library has for a prompt; a library that cannot be used is noted."""
        if len(prompt_ids) < self._min_tokens:
            return Found(None)
        try:
            return Found(self.library.best_match(engine.fingerprint, prompt_ids))
        except OSError as error:
            self._note_unusable(error)
            return Found(None)

    def generate(
        self,
        engine: Engine,
        prompt_ids: Sequence[int],
        *,
        documents: Iterable[DocumentInfo] = (),
        max_new_tokens: int = 512,
        sampling: SamplingConfig | None = None,
        boundaries: Sequence[int] = (),
        found: Found | None = None,
    ) -> Generator[Event, None, None]:
        """`Engine.generate` of the engine's own context, with the library.

        Args:
            engine: idle.
            prompt_ids: the whole prompt.
            documents: in it, to name the entry after.
            max_new_tokens: see there.
            sampling: see there.
            boundaries: see there.
            found: by `look_up` for this prompt; None looks it up now.
        """
        self._let_go_of_idle()
        checkpoints: CheckpointWriter | None = None
        if len(prompt_ids) >= self._min_tokens:
            found = found or self.look_up(engine, prompt_ids)
            try:
                found = self._bring(engine, prompt_ids, found.match)
                checkpoints = self._checkpoints(engine, prompt_ids, documents, found)
            except OSError as error:
                self._note_unusable(error)
        events = engine.generate(
            prompt_ids,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            boundaries=boundaries,
            checkpoints=checkpoints,
        )
        try:
            with contextlib.closing(events):
                yield from events
        except Exception:
            # What was begun for it is deleted, unless it can be gone on with.
            self.wait()
            raise

    def wait(self) -> None:
        """Until all that is to be kept is on the disk."""
        while self._writers:
            checkpoints, in_use = self._writers.pop()
            checkpoints.wait()
            in_use.release()
            self._note_problem(checkpoints)
            self._told.discard(checkpoints)

    def close(self) -> None:
        """Waits, and lets go of the entry in use."""
        self.wait()
        if self._in_use is not None:
            self._in_use.release()
            self._in_use = None

    def _note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)

    def _note_unusable(self, error: OSError) -> None:
        self._note(
            f"The library {self.library.folder} cannot be used: {error.strerror or error}. "
            "The answer is not touched by it."
        )

    def _note_problem(self, checkpoints: CheckpointWriter) -> None:
        if checkpoints.problem and checkpoints not in self._told:
            self._told.add(checkpoints)
            self._note(checkpoints.problem)

    def _let_go_of_idle(self) -> None:
        busy = [item for item in self._writers if not item[0].is_idle]
        idle = [item for item in self._writers if item[0].is_idle]
        self._writers = idle
        self.wait()
        self._writers = busy

    def _bring(self, engine: Engine, prompt_ids: Sequence[int], match: Match | None) -> Found:
        """Opens the best entry if it saves more than the engine holds; the next one if it cannot
        be opened."""
        tried: set[str] = set()
        while match is not None and match.common_tokens >= self._min_tokens // 2:
            if match.worth <= engine.context.saves_tokens(prompt_ids):
                self.library.touch(match.entry)
                return Found(match)
            if self._open(engine, match.entry):
                self.library.touch(match.entry)
                return Found(match, is_open=True)
            tried.add(match.entry.id)
            match = self.library.best_match(engine.fingerprint, prompt_ids, except_for=tried)
        return Found(None)

    def _open(self, engine: Engine, entry: Entry) -> bool:
        """Makes an entry the engine's context; False if it is gone, in use or damaged."""
        in_use = self.library.claim(entry)
        if in_use is None:
            return False
        try:
            engine.use(engine.reopen(entry.folder))
        except (SnapshotUnusable, OutOfMemory) as error:
            in_use.release()
            self._note(str(error))
            return False
        if self._in_use is not None:
            self._in_use.release()
        self._in_use = in_use
        return True

    def _checkpoints(
        self,
        engine: Engine,
        prompt_ids: Sequence[int],
        documents: Iterable[DocumentInfo],
        found: Found,
    ) -> CheckpointWriter | None:
        """What keeps this prompt; None if nothing of it is worth keeping."""
        from mom_core.generate.checkpoint import CheckpointWriter

        tokens, entry, superseded = len(prompt_ids), None, list[Entry]()
        if found.match is not None:
            entry = found.match.entry
            new_tokens = tokens - found.match.common_tokens
            if entry.is_whole and new_tokens < _NEW_SHARE * tokens:
                return None
            if found.match.common_tokens == entry.tokens:
                superseded.append(entry)
        if not self._has_room(tokens * engine.kv_bytes_per_token, entry):
            return None
        folder = self.library.new_folder()
        manifest: Manifest | None = None
        if found.is_open and entry is not None and not entry.is_whole and entry.tokens == tokens:
            # This very reading: its files are gone on with.
            if superseded:
                folder, manifest = entry.folder, entry.manifest
            superseded.clear()
        in_use = self.library.in_use(folder.name.removeprefix(PARTIAL))
        # Only now: a digest goes through all of a document's text.
        named = tuple(documents)
        if manifest is None:
            self.library.describe(folder, named)
        checkpoints = CheckpointWriter(
            folder,
            engine.fingerprint,
            engine.name,
            extra={"documents": [asdict(document) for document in named]},
            found=manifest,
            place=lambda _: self.library.place(folder, superseded),
        )
        self._writers.append((checkpoints, in_use))
        return checkpoints

    def _has_room(self, wanted_bytes: int, entry: Entry | None) -> bool:
        if self.library.make_room(wanted_bytes, except_id="" if entry is None else entry.id):
            return True
        if limit_bytes := self.library.quota().limit_bytes:
            self._note(
                f"What was read takes {wanted_bytes / 2**30:.1f} GiB and is not kept: the "
                f"library's quota is {limit_bytes / 2**30:.1f} GiB. Raise it with "
                "`mom library quota`, or forget what is not needed."
            )
        return False
