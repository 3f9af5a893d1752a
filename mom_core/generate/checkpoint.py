"""Keeps a reading on disk, both while it goes on and when it is complete.

A layer's keys and values are written when the layer is done, by a thread beside the computation,
from a branch that nobody changes. The hidden states change with the next layer, so they are
written between two layers, and only as often as their measured writing time stays within a share
of the reading time. What ends a process then costs the layers since the last such point.

Whatever goes wrong here ends only the writing, and is reported: the answer goes on.

Source: ours.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor

from mom_core.generate.resume import ReadingState
from mom_core.kv.oom import full_memory
from mom_core.kv.state import LayerState
from mom_core.kv.store import KVStore
from mom_core.kv.transfer import HiddenStates
from mom_core.snapshot.manifest import Manifest, Progress
from mom_core.snapshot.tensor_file import Stopped
from mom_core.snapshot.write import SnapshotWriter

_LOG = logging.getLogger(__name__)
# Of the reading time, what waiting for the disk may take. What the writing thread takes comes to
# it; together they came to about 3 % (`python -m benchmarks.reopen`).
_SHARE = 0.01
# Of the writing thread: it takes what computation leaves, instead of half a core of two.
_NICENESS = 19
# Until it was measured: a slow disk.
_GUESSED_BYTES_PER_SECOND = 100e6


class CheckpointWriter:
    """Keeps one reading of a prompt.

    Args:
        folder: its own; made if it is not there.
        fingerprint: the model's.
        model: its name, for people.
        extra: what the app keeps beside it.
        found: what the folder holds of this same reading already; None for nothing.
        place: called with the manifest when all is written, by the writing thread.

    Attributes:
        problem: why nothing was kept, as a sentence; "" if all went well so far.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: dict[str, str],
        model: str,
        *,
        extra: dict[str, Any] | None = None,
        found: Manifest | None = None,
        place: Callable[[Manifest], None] | None = None,
    ) -> None:
        self.folder = folder
        self.problem = ""
        self._fingerprint, self._model, self._extra = fingerprint, model, extra or {}
        self._found, self._place = found, place
        self._stop = threading.Event()
        self._writer: SnapshotWriter | None = None
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix="mom-keeping", initializer=_step_back
        )
        self._pending: list[Future[None]] = []
        self._bytes_per_second = _GUESSED_BYTES_PER_SECOND
        self._written_at = time.perf_counter()
        self._is_kept = found is not None

    def begin(self, token_ids: Sequence[int], store: KVStore) -> None:
        """A reading begins, or goes on.

        Args:
            token_ids: all that the context will hold.
            store: with what it holds now.
        """
        if self._writer is not None or self.problem:
            return
        with self._giving_up():
            self._writer = SnapshotWriter(self.folder, self._stop)
            self._written_at = time.perf_counter()
            if self._found is not None:
                self._writer.go_on(self._found)
                return
            writer, ids = self._writer, list(token_ids)
            self._submit(lambda: writer.put_tokens(ids))
            # What was read before, and what is done of a reading that goes on.
            self._put_layers(range(len(store.layers)), store)

    def layer_done(self, run: ReadingState) -> None:
        """Called between two layers."""
        if self._writer is None or self.problem or run.hidden is None:
            return
        with self._giving_up():
            self._layer_done(run, run.hidden)

    def _layer_done(self, run: ReadingState, hidden: HiddenStates) -> None:
        run.wait_for_copies()
        # Asked before this layer is added: its own writing has only just begun.
        is_written = all(future.done() for future in self._pending)
        layer = run.store.layers[run.layer - 1]
        self._put_layers([run.layer - 1], run.store)
        layer_bytes = layer.kept_bytes if isinstance(layer, LayerState) else layer.used_bytes
        wanted_bytes = hidden.used_bytes + layer_bytes
        seconds = time.perf_counter() - self._written_at
        if is_written and wanted_bytes / self._bytes_per_second < _SHARE * seconds:
            self._checkpoint(run)

    def interrupted(self, run: ReadingState) -> None:
        """The reading ends before it is over: all that was done is kept."""
        if self._writer is None or self.problem:
            return
        with self._giving_up():
            run.wait_for_copies()
            layer = run.store.layers[run.layer]
            if isinstance(layer, LayerState):
                # Only what is kept is written.
                layer.keep()
            self._put_layers([run.layer], run.store)
            self._checkpoint(run)

    def done(self, token_ids: Sequence[int], store: KVStore, logits: Tensor) -> None:
        """All is read. What is not written yet is written beside what follows.

        Args:
            token_ids: ids of all tokens in the store.
            store: holds these tokens; may change afterwards.
            logits: the next token's.
        """
        self.begin(token_ids, store)
        if self._writer is None or self.problem:
            return
        writer, ids = self._writer, list(token_ids)
        with self._giving_up():
            branch = store.branch()
            self._submit(lambda: self._finish(writer, ids, branch, logits))

    def _finish(
        self, writer: SnapshotWriter, token_ids: list[int], branch: KVStore, logits: Tensor
    ) -> None:
        writer.put_tokens(token_ids)
        for index, layer in enumerate(branch.layers):
            writer.put_layer(index, layer)
        writer.put_logits(logits)
        manifest = writer.commit(
            fingerprint=self._fingerprint,
            model=self._model,
            layers=len(branch.layers),
            extra=self._extra,
        )
        self._is_kept = True
        if self._place is not None:
            self._place(manifest)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being written."""
        return all(future.done() for future in self._pending)

    def wait(self) -> None:
        """Until everything is written, and the thread has ended."""
        self._thread.shutdown(wait=True)
        for future in self._pending:
            with self._giving_up():
                future.result()
        self._pending.clear()
        self._sweep()

    def abandon(self) -> None:
        """Ends the writing; what was not kept by then is deleted."""
        self._stop.set()
        self.wait()

    def _sweep(self) -> None:
        if not self._is_kept:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _put_layers(self, indices: Sequence[int], store: KVStore) -> None:
        writer = self._writer
        assert writer is not None
        for index in indices:
            branch = store.layers[index].branch()
            self._submit(lambda index=index, branch=branch: writer.put_layer(index, branch))  # type: ignore[misc]

    def _checkpoint(self, run: ReadingState) -> None:
        """Writes the hidden states, so that what is there can be resumed."""
        for future in self._pending:
            future.result()
        self._pending.clear()
        writer, hidden = self._writer, run.hidden
        if writer is None or hidden is None or self.problem:
            return
        started = time.perf_counter()
        name = writer.put_hidden(hidden.pieces())
        writer.put_logits(run.logits)
        writer.commit(
            fingerprint=self._fingerprint,
            model=self._model,
            layers=len(run.store.layers),
            progress=Progress(past=run.past, layer=run.layer, position=run.position, hidden=name),
            extra=self._extra,
        )
        self._is_kept = True
        self._written_at = time.perf_counter()
        seconds = max(self._written_at - started, 1e-6)
        self._bytes_per_second = hidden.used_bytes / seconds

    def _submit(self, write: Callable[[], None]) -> None:
        def guarded() -> None:
            if not self.problem:
                with self._giving_up():
                    write()

        self._pending = [future for future in self._pending if not future.done()]
        self._pending.append(self._thread.submit(guarded))

    @contextlib.contextmanager
    def _giving_up(self) -> Iterator[None]:
        """What fails within ends the keeping, with a sentence, and nothing else."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the answer must not suffer, whatever it is
            reason, advice = _reason(error)
            self.problem = (
                f"What was read could not be kept in {self.folder.parent}: {reason}. The answer is "
                f"not touched by it; {advice}."
            )


def _reason(error: Exception) -> tuple[str, str]:
    """Why nothing could be kept, and what to do."""
    if isinstance(error, OSError):
        advice = "make room there, or choose another folder with MOM_HOME or --home"
        return error.strerror or str(error), advice
    if isinstance(error, Stopped):
        return "it was stopped", "it is kept when it is asked about again"
    if full_memory(error) is not None:
        return "memory was full", "leave out documents, or close other programs"
    _LOG.error("Reuse failed", exc_info=error)
    return f"{type(error).__name__}: {error}", "the details are in the terminal"


def _step_back() -> None:
    """Lowers the priority of this thread. Elsewhere than on Linux only processes have one."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
