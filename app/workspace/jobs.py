"""Runs that outlive the page: one worker draws the engine's events, pages look at their log.

A page's own event handler dies with its tab. So a run belongs to a `Job`: the worker thread (the
only thread in the path of a token) appends its events, and any number of pages attach, detach and
attach again. Stop sets a flag that the worker obeys at the next event, closing the engine's
generator, which frees what the run held.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Generator
from dataclasses import dataclass

from mom_core.errors import MomError
from mom_core.events import Event, PrefillProgress

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run was stopped by a person."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The run ended with an error.

    Args:
        sentence: for people.
    """

    sentence: str


JobEvent = Event | Stopped | Failed


class Job:
    """One run: its log of events, and the flag that stops it."""

    def __init__(self) -> None:
        self.id = uuid.uuid4().hex
        self._events: list[JobEvent] = []
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._over = threading.Event()
        self._go_on = threading.Event()
        self._go_on.set()
        self._paused_seconds = 0.0
        self._is_held = False
        self._started = threading.Event()

    @property
    def has_started(self) -> bool:
        """Whether its turn has come."""
        return self._started.is_set()

    @property
    def is_paused(self) -> bool:
        """Whether it is to wait before its next event."""
        return not self._go_on.is_set()

    @property
    def is_held(self) -> bool:
        """Whether it waits in a pause now: the step that was under way is done."""
        return self._is_held

    @property
    def paused_seconds(self) -> float:
        """How long it has waited in pauses that are over."""
        return self._paused_seconds

    def pause(self) -> None:
        """Asks the worker to wait after the next event; what was done so far is held."""
        self._go_on.clear()

    def resume(self) -> None:
        """Ends a pause."""
        self._go_on.set()

    @property
    def is_over(self) -> bool:
        """Whether nothing will be appended any more."""
        return self._over.is_set()

    def stop(self) -> None:
        """Asks the worker to end the run at its next event, in a pause too; one whose turn has
        not come is over at once."""
        self._stop.set()
        self._go_on.set()
        with self._changed:
            if not self.has_started and not self.is_over:
                self._events.append(Stopped())
                self._over.set()

    # For the worker.

    def begin(self) -> bool:
        """Its turn has come; False if it was given up in line."""
        with self._changed:
            if self.is_over:
                return False
            self._started.set()
            return True

    def events(self, start: int = 0) -> list[JobEvent]:
        """The log from index `start`.

        A progress event takes the place of the one before it, so the log grows with the answer
        and not with the reading, and the last entry must always be looked at again.
        """
        with self._changed:
            return self._events[start:]

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Waits until the run is over; False if it is not by then."""
        return self._over.wait(timeout_seconds)

    def wait_while_paused(self, on_held: Callable[[], None]) -> None:
        """Returns at once, or when a pause is over; `on_held` is called when it begins to wait."""
        if self._go_on.is_set():
            return
        began = time.monotonic()
        self._is_held = True
        on_held()
        self._go_on.wait()
        self._is_held = False
        self._paused_seconds += time.monotonic() - began

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    def finish(self) -> None:
        """Nothing will be appended any more."""
        self._over.set()

    def append(self, event: JobEvent) -> None:
        """Adds an event to the log; see `events`."""
        with self._changed:
            is_progress = isinstance(event, PrefillProgress)
            if is_progress and self._events and isinstance(self._events[-1], PrefillProgress):
                self._events[-1] = event
            else:
                self._events.append(event)


# A run may yield None while it waits for something: nothing is logged, but Stop is obeyed.
Run = Callable[[], Generator[Event | None, None, None]]


class Worker:
    """One thread that does one run after another.

    Args:
        on_change: called from the worker after every event; must return at once.
    """

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self._on_change = on_change
        self._queue: queue.SimpleQueue[tuple[Job, Run, Callable[[Job], None]] | None] = (
            queue.SimpleQueue()
        )
        self._current: Job | None = None
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="mom-worker", daemon=True)
        self._thread.start()

    def submit(self, run: Run, on_over: Callable[[Job], None] = lambda job: None) -> Job:
        """Lines a run up.

        Args:
            run: makes the generator of events, in the worker's thread.
            on_over: called in the worker's thread after the last event, before the job counts
                as over.
        """
        job = Job()
        self._queue.put((job, run, on_over))
        return job

    def close(self, timeout_seconds: float = 5.0) -> None:
        """Stops the current run and those in line, and ends the thread."""
        self._is_closing = True
        self._queue.put(None)
        if (current := self._current) is not None:
            current.stop()
        self._thread.join(timeout_seconds)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            job, run, on_over = item
            if self._is_closing:
                job.stop()
            if not job.begin():
                continue
            self._current = job
            try:
                job.append(self._draw(job, run))
            except _Complete:
                pass
            except MomError as fault:
                job.append(Failed(str(fault)))
            except Exception as fault:  # noqa: BLE001 - a page is told, whatever happened
                _LOG.exception("A run failed")
                job.append(
                    Failed(
                        f"The run ended with an unexpected error ({type(fault).__name__}: {fault})."
                        " The details are in the terminal; asking again is safe."
                    )
                )
            finally:
                self._current = None
                try:
                    on_over(job)
                except Exception:  # noqa: BLE001 - the runs in line must not wait for ever
                    _LOG.exception("What comes after a run failed")
                finally:
                    job.finish()
                    self._on_change()

    def _draw(self, job: Job, run: Run) -> Stopped:
        if job.is_stopping:
            return Stopped()
        with contextlib.closing(run()) as events:
            for event in events:
                if event is not None:
                    job.append(event)
                    self._on_change()
                job.wait_while_paused(self._on_change)
                if job.is_stopping:
                    return Stopped()
        raise _Complete


class _Complete(Exception):
    """The run came to its own end."""
