"""The line of runs: one at a time, in order, given up by those that nobody waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator

import pytest

from app.workspace.jobs import Job, Stopped
from app.workspace.run_queue import ABANDONED_SECONDS, Runs, without_pauses
from app.workspace.run_view import Asked
from mom_core.events import Event, Finished, PrefillProgress, Token


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def runs(clock: Clock) -> Iterator[Runs]:
    made = Runs(lambda: None, clock)
    yield made
    made.close()


def over(job: Job) -> None:
    pass


def waiting_for(gate: threading.Event) -> Callable[[], Generator[Event | None, None, None]]:
    def run() -> Generator[Event | None, None, None]:
        while not gate.wait(0.01):
            yield None
        yield Token(token_id=1, text="a", index=0)

    return run


def test_the_rest_wait_in_line_and_know_their_place(runs: Runs) -> None:
    gate = threading.Event()
    jobs = [runs.ask(name, Asked(name, 0), waiting_for(gate), over) for name in "abc"]
    while not jobs[0].has_started:
        pass
    assert [runs.position(name) for name in "abc"] == [0, 1, 2]
    assert runs.current == "a"
    runs.stop("b")
    assert jobs[1].is_over
    assert runs.view("b").was_stopped
    assert runs.position("c") == 1
    gate.set()
    assert jobs[2].wait(5)
    assert runs.view("c").text == "a"
    assert runs.is_idle


def test_who_waits_unseen_for_five_minutes_gives_up_but_who_is_at_work_goes_on(
    runs: Runs, clock: Clock
) -> None:
    gate = threading.Event()
    jobs = {name: runs.ask(name, Asked(name, 0), waiting_for(gate), over) for name in "abc"}
    while not jobs["a"].has_started:
        pass
    clock.now += ABANDONED_SECONDS - 1
    runs.watch("c")
    assert runs.position("c") == 2
    clock.now += 2
    assert runs.position("c") == 1
    assert jobs["b"].is_over
    assert not jobs["a"].is_over
    gate.set()
    assert jobs["a"].wait(5)
    assert jobs["c"].wait(5)
    assert runs.view("a").text == runs.view("c").text == "a"
    assert runs.view("b").text == ""


def test_who_gave_up_unseen_never_begins_though_no_tab_is_open(runs: Runs, clock: Clock) -> None:
    gate = threading.Event()
    jobs = [runs.ask(name, Asked(name, 0), waiting_for(gate), over) for name in "ab"]
    while not jobs[0].has_started:
        pass
    clock.now += ABANDONED_SECONDS + 1
    # Nobody asks for a place in the line.
    gate.set()
    assert jobs[1].wait(5)
    assert not jobs[1].has_started
    assert jobs[1].events() == [Stopped()]


def test_a_pause_holds_the_run_and_is_not_counted(runs: Runs) -> None:
    steps, done = threading.Semaphore(0), []

    def run() -> Generator[Event | None, None, None]:
        for number in range(3):
            steps.acquire()
            done.append(number)
            yield Token(token_id=number, text="x", index=number)

    job = runs.ask("a", Asked("?", 0), run, over)
    runs.pause("a", is_paused=True)
    # The step under way is done first.
    assert job.is_paused
    assert not job.is_held
    steps.release()
    while not job.is_held:
        assert not job.wait(0.01)
    assert len(job.events()) == 1
    steps.release(2)
    assert not job.wait(0.1)
    assert done == [0]
    runs.pause("a", is_paused=False)
    assert job.wait(5)
    assert done == [0, 1, 2]
    assert not job.is_held
    assert job.paused_seconds > 0.05


def test_stop_ends_a_pause(runs: Runs) -> None:
    gate = threading.Event()
    job = runs.ask("a", Asked("?", 0), waiting_for(gate), over)
    runs.pause("a", is_paused=True)
    runs.stop("a")
    assert job.wait(5)
    assert job.events() == [Stopped()]


def test_times_are_told_without_the_pauses() -> None:
    job = Job()
    progress = PrefillProgress(
        prompt_tokens=10,
        reused_tokens=0,
        layer=1,
        layers=2,
        token_layers_done=10,
        token_layers_total=20,
        fraction=0.5,
        elapsed_seconds=30.0,
        eta_seconds=30.0,
    )
    finished = Finished(
        reason="stop",
        prompt_tokens=10,
        reused_tokens=0,
        new_tokens=1,
        decode_steps=0,
        prefill_seconds=50.0,
        decode_seconds=1.0,
    )
    assert without_pauses(progress, job) is progress
    job._paused_seconds = 20.0
    told = without_pauses(progress, job)
    assert isinstance(told, PrefillProgress)
    assert (told.elapsed_seconds, told.eta_seconds) == (10.0, 10.0)
    ended = without_pauses(finished, job)
    assert isinstance(ended, Finished)
    assert ended.prefill_seconds == 30.0


def test_close_ends_those_in_line_too(clock: Clock) -> None:
    runs = Runs(lambda: None, clock)
    gate = threading.Event()
    jobs = [runs.ask(name, Asked(name, 0), waiting_for(gate), over) for name in "ab"]
    runs.close()
    assert all(job.is_over for job in jobs)
