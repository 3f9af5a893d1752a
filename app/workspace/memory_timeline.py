"""Memory over a run, for the timeline: a ring of readings that thins itself as the run grows.

A thread of its own reads the meter four times a second while a run is on, whether or not a page
is open, and sleeps while none is.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from app import wording
from app.workspace.run_view import RunPhase
from mom_core.events import Adapted, Event, MemorySample

POINTS = 600
_EVERY_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Now:
    """What a run is doing.

    Args:
        run_id: of the run at work; "" if there is none.
        phase: of it.
        layer: being read, from 1; 0 while it does not read.
    """

    run_id: str
    phase: RunPhase
    layer: int


@dataclass(frozen=True, slots=True)
class Point:
    """One reading.

    Args:
        number: grows by one with each reading of the run.
        seconds: since the run began.
        phase: of the run.
        layer: being read, from 1; 0 while it does not read.
        device: bytes of weights, keys and values, hidden states, other activations, rest; empty
            without a GPU.
        host: the same of CPU memory, then other programs.
        disk: bytes in files of the disk tier.
    """

    number: int
    seconds: float
    phase: RunPhase
    layer: int
    device: tuple[int, ...]
    host: tuple[int, ...]
    disk: int


@dataclass(frozen=True, slots=True)
class TimelineNote:
    """Something that happened: "chunk 8,192 -> 4,096, continued"."""

    seconds: float
    text: str


class MemoryTimeline:
    """The readings of the current run, or of the last one.

    Args:
        sample: reads the meter.
        now: tells what is going on; called from the thread.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        sample: Callable[[], MemorySample],
        now: Callable[[], Now],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sample = sample
        self._now = now
        self._clock = clock
        self._lock = threading.Lock()
        self.run_id = ""
        self._began = 0.0
        self._count = 0
        self._stride = 1
        self._points: list[Point] = []
        self._marks: list[TimelineNote] = []
        self._wake = threading.Event()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="mom-history", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(2.0)

    def begin(self, run_id: str) -> None:
        """A run begins: forgets the last one and takes the first reading."""
        with self._lock:
            self.run_id = run_id
            self._began = self._clock()
            self._count, self._stride = 0, 1
            self._points.clear()
            self._marks.clear()
        self.read()
        self._wake.set()

    def mark(self, text: str) -> None:
        """Notes something that happened in the current run."""
        with self._lock:
            self._marks.append(TimelineNote(self._clock() - self._began, text))

    def following(self, events: Generator[Event, None, None]) -> Generator[Event, None, None]:
        """The same events; where memory ran out and the run went on, a mark is made."""
        with contextlib.closing(events):
            for event in events:
                if isinstance(event, Adapted):
                    self.mark(wording.adapted(event))
                yield event

    def read(self) -> None:
        """Takes a reading of the run that is on."""
        sample, now = self._sample(), self._now()
        with self._lock:
            if not self.run_id:
                return
            point = _point(self._count, self._clock() - self._began, now, sample)
            # A run of hours has as many points as one of minutes: every other one goes.
            if self._count % self._stride == 0:
                self._points.append(point)
            self._count += 1
            if len(self._points) >= POINTS:
                self._points = self._points[::2]
                self._stride *= 2

    def since(self, number: int) -> tuple[list[Point], list[TimelineNote]]:
        """Points from a number on, and all marks."""
        with self._lock:
            return [point for point in self._points if point.number >= number], list(self._marks)

    @property
    def peak_bytes(self) -> tuple[int, int]:
        """The most that weights, KV and activations took on device and host in this run."""
        with self._lock:
            device = max((sum(point.device[:4]) for point in self._points), default=0)
            return device, max((sum(point.host[:4]) for point in self._points), default=0)

    def _work(self) -> None:
        while not self._is_closing:
            if self._now().run_id != self.run_id or not self.run_id:
                self._wake.wait()
                self._wake.clear()
                continue
            self.read()
            time.sleep(_EVERY_SECONDS)


def _point(number: int, seconds: float, now: Now, sample: MemorySample) -> Point:
    host = (
        sample.host_weights_bytes,
        sample.host_kv_bytes,
        sample.host_hidden_bytes,
        sample.host_activations_bytes - sample.host_hidden_bytes,
        sample.host_rest_bytes,
        max(0, sample.host_total_bytes - sample.host_available_bytes - sample.host_used_bytes),
    )
    device: tuple[int, ...] = ()
    if sample.device_name is not None:
        device = (
            sample.device_weights_bytes,
            sample.device_kv_bytes,
            sample.device_hidden_bytes,
            sample.device_activations_bytes - sample.device_hidden_bytes,
            sample.device_rest_bytes,
        )
    return Point(number, seconds, now.phase, now.layer, device, host, sample.disk_used_bytes)
