"""The workspace with a tiny model: chats, models that come and go, forecasts, the line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.library.library import Library
from app.server.updates.tab_state import tab_state
from app.workspace.conversations import Conversations
from app.workspace.listed_document import Source
from app.workspace.workspace import Workspace
from benchmarks.long_model import make_long_model
from mom_core import Engine
from mom_core.errors import InvalidSetting, ModelUnavailable, MomError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    make_long_model(folder)
    return folder


@pytest.fixture
def workspace(model: Path, tmp_path: Path) -> Iterator[Workspace]:
    made = Workspace(Engine.load, str(model), chats_folder=tmp_path / "chats")
    made.configure(max_new_tokens=4)
    yield made
    made.close()


def until(is_so: Callable[[], Any], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def answer(workspace: Workspace, question: str, chat_id: str | None = None) -> None:
    workspace.ask(question, chat_id)
    until(lambda: not workspace.is_busy)


def test_chats_share_what_was_read(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two three " * 400)
    workspace.documents.add("a", Source(tmp_path / "a.txt", "a.txt"))
    answer(workspace, "First?")
    first = workspace.conversations.newest
    second = workspace.new_conversation()
    answer(workspace, "Second?", second)
    assert ", reused" in workspace.conversations.newest.answered[0].figures
    assert [turn.question for turn in first.turns] == ["First?"]
    # Kept for the next start, too.
    assert len(list((tmp_path / "chats").glob("*.json"))) == 2


def test_a_question_is_asked_in_other_words(workspace: Workspace) -> None:
    for question in ("One?", "Two?", "Three?"):
        answer(workspace, question)
    workspace.ask("Other?", turn=1)
    until(lambda: not workspace.is_busy)
    chat = workspace.conversations.newest
    assert [turn.question for turn in chat.turns] == ["One?", "Other?"]
    with pytest.raises(InvalidSetting, match="no such question"):
        workspace.ask(None, turn=7)


def test_what_is_refused_leaves_the_turns(workspace: Workspace) -> None:
    answer(workspace, "One?")
    with pytest.raises(InvalidSetting, match="Type a question first"):
        workspace.ask("  ", turn=0)
    assert [turn.question for turn in workspace.conversations.newest.turns] == ["One?"]


def test_an_answer_is_dropped_only_once_there_is_another(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer(workspace, "One?")
    answer(workspace, "Two?")
    chat = workspace.conversations.newest
    before = list(chat.answered)
    other = workspace.new_conversation()
    workspace.configure(max_new_tokens=100_000)
    workspace.ask("A long one.", other)
    # In line behind it, and given up there.
    workspace.ask("Another one?", chat.id, 0)
    assert workspace.shown(chat) == []
    assert tab_state(workspace, chat.id)["turns"] == 0
    workspace.stop(chat.id)
    assert workspace.shown(chat) == before
    assert "before it began" in workspace.run(chat.id).status
    workspace.stop(other)
    until(lambda: not workspace.is_busy)

    def fails(*_: Any) -> Any:
        raise MomError("It failed.")

    monkeypatch.setattr(workspace, "_generate", fails)
    workspace.ask(None, chat.id, 1)
    until(lambda: not workspace.is_busy)
    assert workspace.run(chat.id).error == "It failed."
    assert workspace.shown(chat) == before
    # Nor is anything missing after a crash.
    stored = Conversations(tmp_path / "chats").find(chat.id)
    assert [turn.question for turn in stored.turns] == ["One?", "Two?"]


def test_another_model_takes_the_place_of_the_first(workspace: Workspace, model: Path) -> None:
    until(lambda: workspace.model.is_ready and not workspace.is_busy)
    answer(workspace, "One?")
    first = workspace.model.engine
    workspace.model.load(str(model), context_tokens=1_000_000)
    until(lambda: workspace.model.is_ready and not workspace.is_busy)
    assert workspace.model.engine is not first
    assert workspace.model.engine is not None
    assert workspace.model.engine.context_window_tokens == 1_000_000
    answer(workspace, "Two?")
    assert len(workspace.conversations.newest.turns) == 2
    # The next one has its own window again.
    workspace.model.load(str(model))
    until(lambda: workspace.model.is_ready and not workspace.is_busy)
    assert workspace.model.engine.context_window_tokens == 524_288


def test_a_model_that_is_not_there_gets_a_sentence_and_a_way_on(
    workspace: Workspace, model: Path
) -> None:
    until(lambda: workspace.model.is_ready and not workspace.is_busy)
    workspace.model.load("/nowhere/at/all")
    until(lambda: workspace.model.error)
    assert "/nowhere/at/all" in workspace.model.error
    with pytest.raises(InvalidSetting, match="/nowhere"):
        workspace.ask("Anyone?")
    workspace.model.load(str(model))
    until(lambda: workspace.model.is_ready and not workspace.is_busy)
    answer(workspace, "Now?")
    assert len(workspace.conversations.newest.turns) == 1
    with pytest.raises(InvalidSetting, match="Name a model"):
        workspace.model.load("  ")


def test_the_model_is_not_changed_during_a_run(workspace: Workspace, model: Path) -> None:
    workspace.configure(max_new_tokens=2000)
    workspace.ask("A long one?")
    until(lambda: workspace.run().text)
    with pytest.raises(InvalidSetting, match="The model is busy"):
        workspace.model.load(str(model))
    workspace.stop()
    until(lambda: not workspace.is_busy)


def test_the_forecast_follows_what_is_chosen(workspace: Workspace, tmp_path: Path) -> None:
    until(lambda: workspace.model.is_ready and not workspace.is_busy)
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"{name} two three " * 300)
        workspace.documents.add(name, Source(tmp_path / f"{name}.txt", f"{name}.txt"))
    until(lambda: not workspace.documents.is_preparing)
    chat = workspace.conversations.newest.id

    def forecast() -> Any:
        until(lambda: workspace.forecaster.latest(chat) and workspace.forecaster.is_current(chat))
        return workspace.forecaster.latest(chat)

    both = forecast()
    assert both.parts.reused == 0
    assert [strip.states for strip in both.strips] == ["w", "w"]
    answer(workspace, "What?")
    read = forecast()
    assert read.parts.reused > both.parts.documents
    assert [strip.states for strip in read.strips] == ["r", "r"]
    compared = workspace.compared[chat]
    assert compared.read_tokens > both.parts.documents
    assert compared.peak_bytes[1] > 0
    # What comes after the first change is not known any more.
    workspace.documents.remove("a")
    one = forecast()
    assert one.parts.documents < both.parts.documents
    assert one.parts.reused < 100
    assert [strip.states for strip in one.strips] == ["w"]


def test_what_was_read_is_known_at_the_next_start(model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two three " * 400)

    def start() -> Workspace:
        made = Workspace(Engine.load, str(model), library=Library(tmp_path / "home"))
        made.configure(max_new_tokens=4)
        made.documents.add("a", Source(tmp_path / "a.txt", "a.txt"))
        until(lambda: made.model.is_ready and not made.documents.is_preparing)
        return made

    first = start()
    answer(first, "What?")
    said = first.conversations.newest.turns[0].answer_ids
    first.close()
    second = start()
    chat = second.conversations.newest.id
    until(lambda: second.forecaster.latest(chat) and second.forecaster.is_current(chat))
    forecast = second.forecaster.latest(chat)
    assert forecast is not None
    # Told before it is asked, and true.
    assert forecast.parts.reused >= forecast.parts.documents
    answer(second, "What?")
    assert second.conversations.newest.turns[0].answer_ids == said
    assert ", reused" in second.conversations.newest.answered[0].figures
    second.close()


def test_the_library_is_asked_once_a_question(
    model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """The run's forecast and its beginning share one look, which reads all ids of a document."""
    asked: list[int] = []
    best_match = Library.best_match

    def counted(library: Library, fingerprint: Any, ids: Any, **options: Any) -> Any:
        asked.append(len(ids))
        return best_match(library, fingerprint, ids, **options)

    monkeypatch.setattr(Library, "best_match", counted)
    (tmp_path / "a.txt").write_text("one two three " * 200)
    for is_known in (False, True):
        workspace = Workspace(Engine.load, str(model), library=Library(tmp_path / "home"))
        workspace.configure(max_new_tokens=4)
        workspace.documents.add("a", Source(tmp_path / "a.txt", "a.txt"))
        until(lambda made=workspace: made.model.is_ready and not made.documents.is_preparing)
        asked.clear()
        answer(workspace, "Who?")
        assert len(asked) == 1
        figures = workspace.conversations.newest.answered[0].figures
        assert (", reused" in figures) == is_known
        workspace.close()


def test_the_error_of_loading_is_the_engines_own(tmp_path: Path) -> None:
    def load(source: str, config: Any) -> Engine:
        raise ModelUnavailable("There is no such model. Try another.")

    made = Workspace(load, "x")
    until(lambda: made.model.error)
    assert made.model.error == "There is no such model. Try another."
    made.close()
