"""One door to all readers: a path in, a `Document` or one of our errors out.

Files are parsed in processes of their own (`worker.py`). This side listens, keeps the time, and
goes on behind a page or file in which a process hung or crashed. A long document is shared by
several processes.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from app.documents.cache import DiskCache, document_from_bytes, document_to_bytes, key_of
from app.documents.document import Document, Health, LeftOut, Section
from app.documents.limits import DEFAULT_LIMITS, Limits
from app.documents.options import DEFAULT_OPTIONS, ReadOptions
from app.documents.parsing.assemble import Assembly
from app.documents.parts import (
    OUT_OF_MEMORY,
    Begun,
    Done,
    Job,
    More,
    Opened,
    Part,
    Refused,
    from_json,
    job_to_json,
)
from app.documents.secrets import holds_secret
from mom_core.errors import DocumentError
from mom_core.generators import draw

_SHARED_FROM_UNITS = 256
_CRASHES_IN_A_ROW_MAX = 10
_LOOK_EVERY_SECONDS = 0.1
_START_SECONDS = 30.0
_END_SECONDS = 10.0
_PARTS_AT_ONCE = 256
_LINE_BYTES_MAX = 64 * 1024 * 1024


class DocumentLocked(DocumentError):
    """A document is encrypted; a password would open it."""


@dataclass(frozen=True, slots=True)
class ReadProgress:
    """How far reading has come.

    Args:
        done: units read.
        units: all of them; 0 until known.
        sections: those that were finished since the last progress, with their unit's number.
    """

    done: int
    units: int
    sections: tuple[tuple[int, Section], ...] = ()


def read(
    path: Path,
    name: str | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
    limits: Limits = DEFAULT_LIMITS,
    *,
    is_upload: bool = False,
    cache: DiskCache | None = None,
    on_progress: Callable[[ReadProgress], None] = lambda _: None,
) -> Document:
    """Reads a file or folder of any kind.

    The first bytes say what a file is; its name decides only between kinds of text.

    Args:
        path: on this machine.
        name: shown to people; by default the file's own.
        options: the person's choices.
        limits: what reading may take.
        is_upload: `path` is a folder of numbered files beside the list of their names.
        cache: where texts are kept between runs; None keeps nothing.
        on_progress: called at least ten times a second; what it raises cancels the reading.

    Raises:
        DocumentLocked: a password is needed, or the one given is wrong.
        DocumentError: it cannot be read; the message says why and what to do.
    """
    reading = stream(path, name, options, limits, is_upload=is_upload, cache=cache)
    with contextlib.closing(reading):
        return draw(reading, on_progress)


def stream(
    path: Path,
    name: str | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
    limits: Limits = DEFAULT_LIMITS,
    *,
    is_upload: bool = False,
    cache: DiskCache | None = None,
) -> Generator[ReadProgress, None, Document]:
    """Reads as `read` does, and reports how far it has come; closing it cancels at once.

    Yields:
        Progress after every few units, with the sections that are ready; without any at least
        ten times a second.

    Returns:
        The document.

    Raises:
        As `read`.
    """
    name = name or path.name or path.resolve().name
    job = Job(path=path, name=name, options=options, limits=limits, is_upload=is_upload)
    key = None if cache is None else key_of(job)
    if cache is not None and key is not None and (data := cache.get(key)) is not None:
        known = document_from_bytes(data, name)
        if known is not None:
            units = len(known.sections)
            yield ReadProgress(units, units, tuple(enumerate(known.sections)))
            return known
    document = yield from _Reading(job).run()
    is_kept = not _has_faults(document) and not holds_secret(document)
    if cache is not None and key is not None and is_kept:
        cache.put(key, document_to_bytes(document))
    return document


def _has_faults(document: Document) -> bool:
    """A page that took too long today may be read tomorrow."""
    return any(section.health.fault for section in document.sections)


@dataclass(slots=True)
class _Range:
    """A stretch of units and the process that reads them.

    Args:
        job: what it was asked.
        process: that reads; None before and after.
        pending: parts of units that are not done yet.
        begun: the unit it is at, None between units.
        active_seconds: when it was last heard of, by the monotonic clock.
        crashes: since a unit was done.
    """

    job: Job
    process: subprocess.Popen[bytes] | None = None
    pending: list[Part] = field(default_factory=list)
    begun: Begun | None = None
    next_unit: int = 0
    active_seconds: float = 0.0
    crashes: int = 0
    is_over: bool = False


class _Reading:
    """Listens to the processes that read one document."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._parts: queue.Queue[tuple[_Range, subprocess.Popen[bytes], Part | None]] = queue.Queue(
            maxsize=1024
        )
        self._ranges = [_Range(job)]
        self._assembly = Assembly(job)
        self._units = 0
        self._is_shared = False
        self._is_closed = False
        self._folder = ""

    def run(self) -> Generator[ReadProgress, None, Document]:
        """Draws parts until every range is over."""
        # Processes are killed and clean up nothing: what they inflate lies in a folder of ours.
        with tempfile.TemporaryDirectory(prefix="mom-read-", ignore_cleanup_errors=True) as folder:
            self._folder = folder
            return (yield from self._draw())

    def _draw(self) -> Generator[ReadProgress, None, Document]:
        end = time.monotonic() + self._job.limits.seconds
        try:
            self._start(self._ranges[0])
            reported = 0
            while not all(one.is_over for one in self._ranges):
                try:
                    item = self._parts.get(timeout=_LOOK_EVERY_SECONDS)
                except queue.Empty:
                    self._look_for_stalls(end)
                    # A sign of life: whoever draws may want to stop.
                    yield ReadProgress(reported, self._units)
                    continue
                self._take(*item)
                for _ in range(min(self._parts.qsize(), _PARTS_AT_ONCE)):
                    self._take(*self._parts.get())
                self._look_for_stalls(end)
                if self._units and self._assembly.done != reported:
                    reported = self._assembly.done
                    paused = time.monotonic()
                    yield ReadProgress(reported, self._units, self._assembly.take_fresh())
                    # A person who pages through the text takes nobody's time but their own.
                    end += time.monotonic() - paused
            return self._assembly.document()
        finally:
            self._close()

    def _start(self, one: _Range) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.documents.parsing.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(self._folder),
            # Ctrl-C is for this program, which ends its processes itself.
            start_new_session=True,
        )
        one.process, one.begun, one.active_seconds = process, None, time.monotonic()
        one.next_unit = one.job.start
        one.pending = []
        threading.Thread(target=self._listen, args=(one, process), daemon=True).start()

    def _listen(self, one: _Range, process: subprocess.Popen[bytes]) -> None:
        """In a thread of its own: lines to parts, then None when the process has ended."""
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError), process.stdin:
            process.stdin.write(job_to_json(one.job).encode() + b"\n")
        with contextlib.suppress(ValueError, OSError), process.stdout:
            while line := process.stdout.readline(_LINE_BYTES_MAX):
                self._put(one, process, from_json(line))
        process.kill()
        process.wait()
        self._put(one, process, None)

    def _put(self, one: _Range, process: subprocess.Popen[bytes], part: Part | None) -> None:
        while not self._is_closed:
            with contextlib.suppress(queue.Full):
                self._parts.put((one, process, part), timeout=_LOOK_EVERY_SECONDS)
                return

    def _take(self, one: _Range, process: subprocess.Popen[bytes], part: Part | None) -> None:
        if one.is_over or process is not one.process:
            # Words of a process that was ended.
            return
        one.active_seconds = time.monotonic()
        match part:
            case None:
                self._ended(one)
            case Refused():
                raise (DocumentLocked if part.is_locked else DocumentError)(part.sentence)
            case Opened():
                self._opened(one, part)
            case Begun():
                one.begun = part
            case Done():
                self._assembly.add(part.unit, one.pending)
                one.pending, one.next_unit, one.crashes = [], part.unit + 1, 0
                if one.begun is not None and one.begun.unit == part.unit:
                    one.begun = None
                if one.job.end is not None and one.next_unit >= one.job.end:
                    self._over(one)
            case Section() | More() | LeftOut() if one.begun is not None:
                one.pending.append(part)
            case _:
                self._assembly.add_beside(part)

    def _opened(self, one: _Range, opened: Opened) -> None:
        self._units = opened.units
        self._assembly.kind = opened.kind
        if one.job.end is None:
            one.job = replace(one.job, end=opened.units)
        if opened.can_be_split and not self._is_shared and opened.units >= _SHARED_FROM_UNITS:
            self._share(opened.units)
        self._is_shared = True

    def _share(self, units: int) -> None:
        """Gives later stretches to processes of their own, one for each core."""
        cores = max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
        workers = min(cores, units // (_SHARED_FROM_UNITS // 2))
        bounds = [units * number // workers for number in range(workers + 1)]
        # The first process reads on and is ended where the second has begun.
        self._ranges[0].job = replace(self._ranges[0].job, end=bounds[1])
        for start, end in pairwise(bounds[1:]):
            one = _Range(replace(self._job, start=start, end=end))
            self._ranges.append(one)
            self._start(one)

    def _over(self, one: _Range) -> None:
        one.is_over = True
        if one.process is not None:
            one.process.kill()

    def _ended(self, one: _Range) -> None:
        """A process has ended: done, or crashed."""
        if self._assembly.kind is not None and not self._remaining(one):
            one.is_over = True
            return
        memory_mb = self._job.limits.memory_mb
        is_memory = one.process is not None and one.process.returncode == OUT_OF_MEMORY
        self._go_on_behind(
            one,
            f"it needs more than {memory_mb:,} MB of memory"
            if is_memory
            else "the program that read it ended by a fault",
        )

    def _remaining(self, one: _Range) -> bool:
        """Whether units of a range are still to be read."""
        return any(u not in one.job.skip for u in range(one.next_unit, one.job.end or 0))

    def _look_for_stalls(self, end: float) -> None:
        now = time.monotonic()
        if now > end:
            raise DocumentError(
                f"{self._job.name} took longer than {self._job.limits.seconds:,} seconds to read. "
                f"Read a part of it, or {self._job.limits.raising('seconds')}."
            )
        patience = max(self._job.limits.page_seconds, 1)
        for one in self._ranges:
            waits = patience if one.begun is not None else max(patience, _START_SECONDS)
            if not one.is_over and self._parts.empty() and now - one.active_seconds > waits:
                if one.process is not None:
                    one.process.kill()
                self._go_on_behind(one, f"it took longer than {patience} seconds")

    def _go_on_behind(self, one: _Range, reason: str) -> None:
        one.crashes += 1
        # Each file of a folder is a matter of its own; a page after which no other can be read
        # either speaks against the whole.
        gives_up = one.crashes > _CRASHES_IN_A_ROW_MAX and self._assembly.kind != "code"
        if one.begun is None or gives_up:
            raise DocumentError(
                f"{self._job.name} cannot be read: {reason}. It is probably damaged; save it "
                f"again, or allow more with --limit memory_mb=N and --limit page_seconds=N."
            )
        unit = one.begun.unit
        section = Section(one.begun.label, "", health=Health(fault=f"not read: {reason}"))
        if self._assembly.kind == "code":
            self._assembly.add(unit, [LeftOut(one.begun.label, reason)])
        else:
            self._assembly.add(unit, [section])
        skip = one.job.skip | {unit}
        one.job = replace(one.job, start=one.next_unit, skip=skip)
        one.is_over = not self._remaining(one)
        if not one.is_over:
            self._start(one)

    def _close(self) -> None:
        self._is_closed = True
        for one in self._ranges:
            if one.process is not None:
                one.process.kill()
        for one in self._ranges:
            if one.process is not None:
                # Only then does it write nothing more into the temporary folder.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    one.process.wait(_END_SECONDS)


def _environment(temporary: str) -> dict[str, str]:
    """The worker's: this program must be found, and one thread a process is enough.

    Args:
        temporary: the folder for its temporary files.
    """
    root = str(Path(__file__).parents[3])
    paths = os.environ.get("PYTHONPATH", "")
    return os.environ | {
        "PYTHONPATH": f"{root}{os.pathsep}{paths}" if paths else root,
        **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), temporary),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
