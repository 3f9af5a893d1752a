"""The runs of all conversations: who is at work, who waits in line, and what each shows.

The model does one run at a time and the rest wait in the order they were asked. A run belongs to
its conversation, not to a tab: a closed tab's run goes on. Only one that still *waits*, and that
nobody has looked at for five minutes, gives up its place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from app.workspace.jobs import Job, JobEvent, Run, Worker
from app.workspace.run_view import Asked, RunView, apply, waiting
from mom_core.events import Finished, PrefillProgress

ABANDONED_SECONDS = 300.0


@dataclass(slots=True)
class _LastRun:
    """A conversation's last run, when somebody saw it, and how much of its log was looked at."""

    job: Job
    view: RunView
    watched_at: float
    seen_events: int = 0


class Runs:
    """One run a conversation, one at a time in all.

    Args:
        changed: called whenever anything shown may have changed; must return at once.
        clock: monotonic seconds.
    """

    def __init__(
        self, changed: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._changed = changed
        self._clock = clock
        self._lock = threading.RLock()
        self._worker = Worker(changed)
        self._kept: dict[str, _LastRun] = {}
        self._line: list[tuple[str, Job]] = []

    def give_up_abandoned(self) -> None:
        """Takes those out of the line that nobody waits for any more."""
        with self._lock:
            for owner, job in self._line:
                if owner and not job.has_started and self._is_abandoned(owner):
                    job.stop()
            self._line = [(owner, job) for owner, job in self._line if not job.is_over]

    def close(self) -> None:
        """Stops everything."""
        self._worker.close()

    def do(self, run: Run, on_over: Callable[[Job], None]) -> Job:
        """Work of the model that belongs to no conversation, such as loading it."""
        return self._line_up("", run, on_over)

    def ask(
        self, conversation_id: str, asked: Asked, run: Run, on_over: Callable[[Job], None]
    ) -> Job:
        """Lines up the answer to a question.

        Args:
            conversation_id: whose run it is; it has none that is not over.
            asked: shown until the answer is there.
            run: makes the events.
            on_over: called in the worker's thread once they end.
        """

        with self._lock:
            job = self._line_up(conversation_id, run, on_over)
            view = waiting(job.id, asked)
            self._kept[conversation_id] = _LastRun(job, view, self._clock())
        self._changed()
        return job

    def _line_up(self, owner: str, run: Run, on_over: Callable[[Job], None]) -> Job:
        def over(job: Job) -> None:
            try:
                on_over(job)
            finally:
                with self._lock:
                    self._line = [one for one in self._line if one[1] is not job]
                    # Nobody may be there to ask for places: none begins that is not waited for.
                    self.give_up_abandoned()

        with self._lock:
            job = self._worker.submit(run, over)
            self._line.append((owner, job))
            return job

    def watch(self, conversation_id: str) -> None:
        """Somebody looks at a conversation."""
        with self._lock:
            if (kept := self._kept.get(conversation_id)) is not None:
                kept.watched_at = self._clock()

    def _is_abandoned(self, conversation_id: str) -> bool:
        kept = self._kept.get(conversation_id)
        return kept is None or self._clock() - kept.watched_at > ABANDONED_SECONDS

    def job(self, conversation_id: str) -> Job | None:
        """The last one."""
        with self._lock:
            kept = self._kept.get(conversation_id)
            return None if kept is None else kept.job

    @property
    def current(self) -> str | None:
        """The conversation whose run is at work; "" while a model is loaded, None if none is."""
        with self._lock:
            return next((o for o, job in self._line if job.has_started and not job.is_over), None)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is at work or in line."""
        return all(job.is_over for _, job in self._line)

    def is_busy(self, conversation_id: str) -> bool:
        """Whether its run is at work or in line."""
        job = self.job(conversation_id)
        return job is not None and not job.is_over

    def position(self, conversation_id: str) -> int:
        """How many runs are before it; 0 if it is at work or has none."""
        with self._lock:
            self.give_up_abandoned()
            owners = [owner for owner, _ in self._line]
            return owners.index(conversation_id) if conversation_id in owners else 0

    def stop(self, conversation_id: str) -> None:
        """Ends its run at the next event; one in line is given up."""
        if (job := self.job(conversation_id)) is not None:
            job.stop()
            self._changed()

    def pause(self, conversation_id: str, *, is_paused: bool) -> None:
        """Holds its run after the next event, or lets it go on."""
        job = self.job(conversation_id)
        if job is None or job.is_over:
            return
        if is_paused:
            job.pause()
        else:
            job.resume()
        self._changed()

    def forget(self, conversation_id: str) -> None:
        """Stops its run and shows nothing of it any more."""
        self.stop(conversation_id)
        with self._lock:
            self._kept.pop(conversation_id, None)

    def without_pauses(self, conversation_id: str, finished: Finished) -> Finished:
        """How a run ended, without the time a person let it wait."""
        job = self.job(conversation_id)
        told = finished if job is None else without_pauses(finished, job)
        assert isinstance(told, Finished)
        return told

    def view(self, conversation_id: str) -> RunView:
        """Its current or last run, up to date."""
        with self._lock:
            kept = self._kept.get(conversation_id)
            if kept is None:
                return RunView()
            events = kept.job.events(kept.seen_events)
            for event in events:
                kept.view = apply(kept.view, without_pauses(event, kept.job))
            kept.seen_events += len(events)
            if events and isinstance(events[-1], PrefillProgress):
                # Its place in the log may be taken by the next one.
                kept.seen_events -= 1
            return kept.view


def without_pauses(event: JobEvent, job: Job) -> JobEvent:
    """An event whose times do not count how long a person let the run wait."""
    paused_seconds = job.paused_seconds
    if not paused_seconds:
        return event
    if isinstance(event, Finished):
        seconds = max(0.0, event.prefill_seconds - paused_seconds)
        return replace(event, prefill_seconds=seconds)
    if isinstance(event, PrefillProgress) and event.eta_seconds is not None:
        elapsed = max(0.0, event.elapsed_seconds - paused_seconds)
        eta = elapsed * (1 - event.fraction) / max(event.fraction, 1e-9)
        return replace(event, elapsed_seconds=elapsed, eta_seconds=eta)
    return event
