"""Chats: their names, turns and files."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from app.citations import Citation
from app.prompt.prompt import Turn
from app.workspace.conversations import Answered, Conversations, export
from mom_core.errors import InvalidSetting


def answered(question: str = "Why?", answer: str = "Because.") -> Answered:
    found = Citation("p. 3", "a.pdf", "p. 3", None, True, 0, 4, also_in=("b.pdf",))
    return Answered(Turn(question, (1, 2, 3), answer), "fast", "part of it", (found,), "model")


def test_a_chat_is_named_by_its_first_question_until_a_person_names_it() -> None:
    chats = Conversations()
    chat = chats.newest
    assert chat.name == "New chat"
    chats.append(chat.id, answered("What does chapter four say about bees in winter, and why?"))
    assert chat.name == "What does chapter four say about bees …"
    chats.rename(chat.id, "  Bees \n in winter ")
    assert chat.name == "Bees in winter"
    with pytest.raises(InvalidSetting, match="needs at least one letter"):
        chats.rename(chat.id, " \n ")


def test_new_chats_come_first_and_an_empty_one_is_not_made_twice() -> None:
    chats = Conversations()
    first = chats.newest
    assert chats.new() is first
    chats.append(first.id, answered())
    second = chats.new()
    assert [chat.id for chat in chats] == [second.id, first.id]


def test_deleting_the_last_chat_leaves_an_empty_one() -> None:
    chats = Conversations()
    gone = chats.newest.id
    chats.delete(gone)
    assert chats.newest.id != gone
    assert chats.known(gone) is chats.newest
    with pytest.raises(InvalidSetting, match="not here any more"):
        chats.find(gone)
    chats.append(gone, answered())
    assert [chat.answered for chat in chats] == [[]]


def test_an_answer_takes_the_place_of_an_earlier_one() -> None:
    chats = Conversations()
    chat = chats.newest
    for number in range(3):
        chats.append(chat.id, answered(f"Question {number}"))
    before = chat.revision
    chats.append(chat.id, answered("Other"), 1)
    assert [turn.question for turn in chat.turns] == ["Question 0", "Other"]
    assert chat.revision > before


def test_chats_outlive_the_program_and_are_nobody_elses(tmp_path: Path) -> None:
    folder = tmp_path / "chats"
    chats = Conversations(folder)
    first = chats.newest
    chats.append(first.id, answered())
    chats.append(chats.new().id, answered("Second?"))
    again = list(Conversations(folder))
    assert sorted(chat.name for chat in again) == ["Second?", "Why?"]
    kept = next(chat for chat in again if chat.id == first.id)
    assert kept.answered == first.answered
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    chats.delete(first.id)
    assert not (folder / f"{first.id}.json").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 99}', '{"format": 1, "id": "x"}'])
def test_what_is_no_chat_is_passed_over(tmp_path: Path, content: str) -> None:
    chats = Conversations(tmp_path)
    chats.append(chats.newest.id, answered())
    (tmp_path / "broken.json").write_text(content)
    assert [chat.name for chat in Conversations(tmp_path)] == ["Why?"]


def test_a_full_disk_loses_nothing_of_this_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chats = Conversations(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json, "dump", full)
    chats.append(chats.newest.id, answered())
    assert len(chats.newest.answered) == 1
    assert list(tmp_path.glob("*.json")) == []
    assert list(tmp_path.glob(".chat-*")) == []


def test_export_is_markdown() -> None:
    chats = Conversations()
    chats.append(chats.newest.id, answered("Two\nlines?", "An *answer*."))
    assert export(chats.newest) == (
        "# Two lines?\n\n## Two lines?\n\nAn *answer*.\n\n> part of it\n> fast\n"
    )
