"""Jobs outlive whoever looks at them, stop when told, and turn faults into sentences."""

from __future__ import annotations

import threading
from collections.abc import Generator

from app.workspace.jobs import Failed, Job, Stopped, Worker
from mom_core.errors import MomError
from mom_core.events import Event, PrefillProgress, Token


def progress(fraction: float) -> PrefillProgress:
    return PrefillProgress(
        prompt_tokens=10,
        reused_tokens=0,
        layer=0,
        layers=1,
        token_layers_done=0,
        token_layers_total=10,
        fraction=fraction,
        elapsed_seconds=0.0,
        eta_seconds=None,
    )


def token(index: int) -> Token:
    return Token(token_id=index, text=str(index), index=index)


def test_a_job_logs_its_events_and_progress_takes_one_place() -> None:
    worker = Worker()

    def run() -> Generator[Event | None, None, None]:
        yield progress(0.1)
        yield None
        yield progress(0.9)
        yield token(0)
        yield token(1)

    job = worker.submit(run)
    assert job.wait(5)
    assert job.events() == [progress(0.9), token(0), token(1)]
    assert job.events(2) == [token(1)]
    worker.close()


def test_stop_closes_the_run() -> None:
    worker, started, closed = Worker(), threading.Event(), threading.Event()

    def run() -> Generator[Event, None, None]:
        try:
            for index in range(10**9):
                started.set()
                yield token(index)
        finally:
            closed.set()

    job = worker.submit(run)
    assert started.wait(5)
    job.stop()
    assert job.wait(5)
    assert closed.is_set()
    assert isinstance(job.events()[-1], Stopped)
    worker.close()


def test_a_job_stopped_in_line_never_starts() -> None:
    worker, gate = Worker(), threading.Event()

    def blocking() -> Generator[Event, None, None]:
        gate.wait(5)
        yield token(0)

    def forbidden() -> Generator[Event, None, None]:
        raise AssertionError("must not run")
        yield token(0)

    first, second = worker.submit(blocking), worker.submit(forbidden)
    second.stop()
    gate.set()
    assert first.wait(5)
    assert second.wait(5)
    assert second.events() == [Stopped()]
    worker.close()


def test_faults_become_sentences_and_the_worker_goes_on() -> None:
    worker = Worker()
    seen: list[Job] = []

    def refused() -> Generator[Event, None, None]:
        raise MomError("That cannot be.")
        yield token(0)

    def broken() -> Generator[Event, None, None]:
        yield token(0)
        raise ZeroDivisionError("oops")

    first, second = worker.submit(refused, seen.append), worker.submit(broken, seen.append)
    assert first.wait(5)
    assert second.wait(5)
    assert first.events() == [Failed("That cannot be.")]
    last = second.events()[-1]
    assert isinstance(last, Failed)
    assert "ZeroDivisionError: oops" in last.sentence
    assert seen == [first, second]
    worker.close()


def test_what_comes_after_a_run_may_fail_and_the_worker_goes_on() -> None:
    worker = Worker()

    def run() -> Generator[Event, None, None]:
        yield token(0)

    def fails(job: Job) -> None:
        raise OSError("no space")

    first, second = worker.submit(run, fails), worker.submit(run)
    assert first.wait(5)
    assert second.wait(5)
    assert second.events() == [token(0)]
    worker.close()
