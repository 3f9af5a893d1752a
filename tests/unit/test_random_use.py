"""Hours of random use, in fast motion: whatever a person does, memory is what it was."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import sys
import threading
import time
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from app.library.library import Library
from app.server.updates.stream import Feed, feeds
from app.workspace.uploads import Uploads
from app.workspace.workspace import Workspace
from benchmarks.long_model import make_long_model
from mom_core import Context, Engine, EngineConfig, MomError
from mom_core.kv.store import LayerKV

ROOT = Path(__file__).parents[2]
HOURS = 8
# Of our own objects in Python; one small object an action would be more.
SLACK_BYTES = 64 * 1024
# A shelf has up to four threads that read, made when they are needed.
SLACK = {"threads": 4, "descriptors": 4, "files": 0}
QUOTA_BYTES = 300_000
WORDS = ("harbour tide bell keeper lamp storm ledger rope gull pilot mast anchor " * 20).split()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Held:
    """What the program holds when nothing is open and nobody does anything.

    Args:
        python_bytes: allocated by lines of `app` and `mom_core`.
        engines: alive.
        contexts: alive.
        kv_bytes: held by all layers that are alive.
        threads: the process's threads.
        descriptors: open files.
        files: in the temporary folder, but for those of the library and the chats.
    """

    python_bytes: int
    engines: int
    contexts: int
    kv_bytes: int
    threads: int
    descriptors: int
    files: int


def alive() -> tuple[int, int, int]:
    """Engines, contexts, and bytes of keys and values in all layers."""
    objects = gc.get_objects()
    layers = [one for one in objects if type(one) is LayerKV]
    return (
        sum(type(one) is Engine for one in objects),
        sum(type(one) is Context for one in objects),
        sum(layer.used_bytes for layer in layers),
    )


class Person:
    """Does one thing after another, at random, with any number of tabs.

    Args:
        model: folder of a tiny model.
        folder: for everything that is written.
        seed: for the random choices.
    """

    def __init__(self, model: Path, folder: Path, seed: int) -> None:
        self.model, self.folder = model, folder
        self.state = random.Random(seed)
        self.clock = Clock()
        gc.collect()
        # What other tests have left is not this person's.
        self.before = alive()
        self.done: dict[str, int] = {}
        self.refused = 0
        # Some documents come again, so that the library is used.
        self.texts = [self._text(self.state.randrange(20, 300)) for _ in range(4)]
        self.start()

    def _text(self, words: int) -> str:
        return " ".join(self.state.choices(WORDS, k=words))

    def start(self) -> None:
        """The program starts."""
        library = Library(self.folder / "home")
        library.set_quota(QUOTA_BYTES)
        self.workspace = Workspace(
            Engine.load,
            str(self.model),
            EngineConfig(scratch_folder=self.folder / "scratch"),
            chats_folder=self.folder / "chats",
            library=library,
            clock=self.clock,
        )
        self.uploads = Uploads(self.workspace.folder)
        self.workspace.configure(max_new_tokens=4)
        self.tabs: list[list[Feed]] = []
        self.open_tab()

    # What a person does.

    def add(self) -> None:
        batch, text = uuid.uuid4().hex, self.state.choice(self.texts)
        if self.state.random() < 0.3:
            text = self._text(150)
        for number in range(self.state.randrange(1, 3)):
            self.uploads.place(batch, f"notes/{number}.txt").write_text(text)
        if self.state.random() < 0.1:
            # Its tab was closed before all had arrived.
            self.uploads.forget(batch)
            return
        self.workspace.documents.add(batch, self.uploads.finish(batch))

    def remove(self) -> None:
        for document in self.workspace.documents.states()[:1]:
            self.workspace.documents.remove(document.id)

    def choose(self) -> None:
        for document in self.workspace.documents.states():
            self.workspace.documents.choose(document.id, [0])

    def chat(self) -> str:
        return self.state.choice(list(self.workspace.conversations)).id

    def ask(self) -> None:
        self.workspace.ask(self._text(5), self.chat())

    def ask_and_wait(self) -> None:
        self.ask()
        self.wait()

    def stop(self) -> None:
        self.workspace.stop(self.chat())

    def pause(self) -> None:
        chat = self.chat()
        self.workspace.runs.pause(chat, is_paused=True)
        self.look()
        self.workspace.runs.pause(chat, is_paused=False)

    def edit(self) -> None:
        chat = self.workspace.conversations.find(self.chat())
        self.workspace.ask(self._text(4), chat.id, len(chat.answered) - 1)

    def new_chat(self) -> None:
        self.workspace.new_conversation()

    def delete_chat(self) -> None:
        self.workspace.delete(self.chat())

    def rename_chat(self) -> None:
        self.workspace.rename(self.chat(), self._text(2))

    def open_tab(self) -> None:
        self.tabs.append(feeds(self.workspace, self.chat()))

    def close_tab(self) -> None:
        if self.tabs:
            self.tabs.pop(self.state.randrange(len(self.tabs)))

    def look(self) -> None:
        for tab in self.tabs:
            for feed in tab:
                for _ in feed.poll():
                    pass

    def set(self) -> None:
        offload = self.state.choice(["auto", "off", "KV + hidden to host", "KV + hidden to disk"])
        self.workspace.configure(
            offload=offload,
            chunk=self.state.choice(["auto", "64", "7"]),
            max_new_tokens=self.state.choice([2, 4, 16]),
            temperature=self.state.choice([0.0, 1.5]),
            fits_best_parts=self.state.random() < 0.5,
        )

    def set_wrongly(self) -> None:
        self.workspace.configure(chunk="many")

    def change_model(self) -> None:
        window = self.state.choice([None, 1_000_000])
        self.workspace.model.load(str(self.model), context_tokens=window)

    def change_to_no_model(self) -> None:
        self.workspace.model.load("/no/such/model")
        self.until(lambda: self.workspace.model.error)
        self.workspace.model.load(str(self.model))

    def forget_entry(self) -> None:
        library = self.workspace.library
        assert library is not None
        for entry in library.list()[-1:]:
            library.forget(entry.id)

    def go_away(self) -> None:
        self.clock.now += self.state.choice([20, 400])

    def restart(self) -> None:
        self.tabs.clear()
        self.workspace.close()
        self.start()

    def do(self, actions: int) -> None:
        """So many actions."""
        often = [self.add, self.ask, self.ask_and_wait, self.look]
        sometimes = [
            *(self.remove, self.choose, self.stop, self.pause, self.edit, self.new_chat),
            *(self.delete_chat, self.rename_chat, self.open_tab, self.close_tab, self.set),
            *(self.set_wrongly, self.forget_entry, self.go_away),
        ]
        rarely = [self.change_model, self.change_to_no_model, self.restart]
        weights = [4.0] * len(often) + [1.0] * len(sometimes) + [0.3] * len(rarely)
        for _ in range(actions):
            (action,) = self.state.choices([*often, *sometimes, *rarely], weights)
            name = action.__name__
            self.done[name] = self.done.get(name, 0) + 1
            try:
                action()
            except MomError:
                self.refused += 1

    # What is left.

    def until(self, is_so: Callable[[], Any], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < end
            time.sleep(0.005)

    def wait(self) -> None:
        """Until nothing is done any more."""
        made = self.workspace
        self.until(lambda: (made.model.is_ready or made.model.error) and not made.is_busy)

    def rest(self) -> Held:
        """Everything is closed; what is held now?"""
        made = self.workspace
        self.wait()
        self.tabs.clear()
        for document in made.documents.states():
            made.documents.remove(document.id)
        for chat in list(made.conversations):
            made.delete(chat.id)
        made.configure(**{field.name: field.default for field in fields(made.settings)})
        made.configure(max_new_tokens=4)
        # Files of the disk tier stay until their engine is closed.
        made.model.load(str(self.model))
        self.wait()
        # The last run's answer is shown until there is another one.
        made.ask("Is anybody there?")
        self.wait()
        assert made._reuse is not None
        made._reuse.close()
        assert made.model.engine is not None
        made.model.engine.context.crop(0)
        made.forecaster._made.clear()
        self.open_tab()
        gc.collect()
        snapshot = tracemalloc.take_snapshot()
        ours = [tracemalloc.Filter(True, f"{ROOT / name}/*") for name in ("app", "mom_core")]
        engines, contexts, kv_bytes = (
            now - then for now, then in zip(alive(), self.before, strict=True)
        )
        return Held(
            sum(trace.size for trace in snapshot.filter_traces(ours).traces),
            engines,
            contexts,
            kv_bytes,
            threading.active_count(),
            len(os.listdir("/proc/self/fd")),
            sum(self._files()),
        )

    def _files(self) -> Iterator[int]:
        """In every folder of uploads and of the disk tier, but for the lock of all of them."""
        for place in (self.folder / "scratch", self.workspace.folder):
            for _, _, files in os.walk(place):
                yield sum(name != ".lock" for name in files)


def use(person: Person, thirds: int, actions: int) -> list[Held]:
    """What is held after each of so many equal parts of a day."""
    held = []
    for _ in range(thirds):
        person.do(actions)
        person.clock.now += HOURS * 3600 / thirds
        held.append(person.rest())
    return held


def assert_flat(held: list[Held]) -> None:
    """The last third of a day holds what the first one held."""
    third = len(held) // 3
    first, last = held[:third], held[-third:]
    most = max(one.python_bytes for one in first) + SLACK_BYTES
    # It goes up and down; what is lost stays.
    assert min(one.python_bytes for one in last) <= most, held
    for one in held:
        assert (one.engines, one.contexts, one.kv_bytes) == (1, 1, 0), held
    for name, slack in SLACK.items():
        before, after = (max(getattr(one, name) for one in part) for part in (first, last))
        assert after <= before + slack, (name, held)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    make_long_model(folder)
    return folder


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start(1)
    yield
    tracemalloc.stop()


@contextlib.contextmanager
def person_of(model: Path, folder: Path, seed: int) -> Iterator[Person]:
    person = Person(model, folder, seed)
    try:
        yield person
    finally:
        person.workspace.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts what /proc shows")
@pytest.mark.usefixtures("traced")
def test_random_use_leaves_memory_flat(model: Path, tmp_path: Path) -> None:
    with person_of(model, tmp_path, 1) as person:
        held = use(person, 3, 45)
        assert_flat(held)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts what /proc shows")
@pytest.mark.usefixtures("traced")
def test_eight_hours_of_random_use_leave_memory_flat(model: Path, tmp_path: Path) -> None:
    with person_of(model, tmp_path, 2) as person:
        held = use(person, 9, 120)
        assert_flat(held)
        assert person.clock.now > HOURS * 3600
        assert len(person.done) == 21
        assert min(person.done.values()) >= 5
        # It must have been allowed to do most of it.
        assert person.refused < 0.4 * sum(person.done.values())


def test_what_is_held_would_be_seen() -> None:
    """A program that forgets to let go of one thing is found out."""
    flat = Held(1_000_000, 1, 1, 0, 10, 20, 0)
    assert_flat([flat] * 3)
    for leak in (
        Held(1_000_000 + 2 * SLACK_BYTES, 1, 1, 0, 10, 20, 0),
        Held(1_000_000, 2, 1, 0, 10, 20, 0),
        Held(1_000_000, 1, 1, 9, 10, 20, 0),
        Held(1_000_000, 1, 1, 0, 15, 20, 0),
        Held(1_000_000, 1, 1, 0, 10, 25, 0),
        Held(1_000_000, 1, 1, 0, 10, 20, 1),
    ):
        with pytest.raises(AssertionError):
            assert_flat([flat, flat, leak])
