"""Conversations about the documents: their turns, names and order, kept in files if wished.

A conversation owns no keys and values: the engine keeps what it read by token ids, so going from
one conversation to another reads again only from where their prompts differ.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from app.citations import Citation
from app.prompt.prompt import Turn
from mom_core.errors import InvalidSetting

_NAME_CHARACTERS = 80
_NEW_NAME = "New chat"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Answered:
    """A turn as the chat shows it.

    Args:
        turn: question and answer.
        figures: speed and tokens, one line.
        notice: what has to stand beside the answer; "" for nothing.
        citations: found in the answer.
        model: that wrote it.
    """

    turn: Turn
    figures: str
    notice: str = ""
    citations: tuple[Citation, ...] = ()
    model: str = ""


@dataclass(slots=True)
class Conversation:
    """One chat.

    Args:
        id: 32 hexadecimal digits.
        name: shown to people; of the first question until a person gives another.
        answered: its turns, in order.
        revision: grows with every change of the turns.
    """

    id: str
    name: str = _NEW_NAME
    answered: list[Answered] = field(default_factory=list)
    revision: int = 0

    @property
    def turns(self) -> list[Turn]:
        """Questions and answers, for the prompt."""
        return [one.turn for one in self.answered]


class Conversations:
    """All chats, newest first.

    Args:
        folder: where each is kept as a file; None keeps them for this run only.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        self._all: dict[str, Conversation] = {}
        if folder is not None:
            for conversation in _stored(folder):
                self._all[conversation.id] = conversation
        if not self._all:
            self.new()

    def __iter__(self) -> Iterator[Conversation]:
        """Newest first."""
        with self._lock:
            return iter(list(reversed(self._all.values())))

    @property
    def newest(self) -> Conversation:
        """The one begun last."""
        with self._lock:
            return next(reversed(self._all.values()))

    def find(self, conversation_id: str) -> Conversation:
        """The chat with this id.

        Raises:
            InvalidSetting: there is none.
        """
        with self._lock:
            if conversation_id not in self._all:
                raise InvalidSetting("This chat is not here any more. Begin a new one.")
            return self._all[conversation_id]

    def known(self, conversation_id: str) -> Conversation:
        """The chat with this id, or the newest if it was deleted."""
        with self._lock:
            return self._all.get(conversation_id) or self.newest

    def new(self, is_taken: Callable[[str], bool] = lambda conversation_id: False) -> Conversation:
        """An empty chat; the newest one if that is empty still.

        Args:
            is_taken: tells of an empty chat's id whether its first answer is on its way.
        """
        with self._lock:
            if self._all and not self.newest.answered and not is_taken(self.newest.id):
                return self.newest
            conversation = Conversation(uuid.uuid4().hex)
            self._all[conversation.id] = conversation
            return conversation

    def rename(self, conversation_id: str, name: str) -> None:
        """Gives a chat another name.

        Raises:
            InvalidSetting: there is no such chat, or no name.
        """
        name = " ".join(name.split())[:_NAME_CHARACTERS]
        if not name:
            raise InvalidSetting("A chat's name needs at least one letter.")
        with self._lock:
            self.find(conversation_id).name = name
            self._store(conversation_id)

    def delete(self, conversation_id: str) -> None:
        """Forgets a chat for good.

        Raises:
            InvalidSetting: there is no such chat.
        """
        with self._lock:
            self.find(conversation_id)
            del self._all[conversation_id]
            if self._folder is not None:
                (self._folder / f"{conversation_id}.json").unlink(missing_ok=True)
            if not self._all:
                self.new()

    def append(self, conversation_id: str, answered: Answered, turn: int | None = None) -> None:
        """Adds a turn; nothing if the chat was deleted meanwhile.

        Args:
            conversation_id: the chat.
            answered: the turn.
            turn: its number, from 0; those from there on are dropped. None adds it at the end.
        """
        with self._lock:
            conversation = self._all.get(conversation_id)
            if conversation is None:
                return
            if turn is not None:
                del conversation.answered[turn:]
            if not conversation.answered and conversation.name == _NEW_NAME:
                conversation.name = _name_of(answered.turn.question)
            conversation.answered.append(answered)
            conversation.revision += 1
            self._store(conversation_id)

    def _store(self, conversation_id: str) -> None:
        if self._folder is None:
            return
        conversation = self._all[conversation_id]
        path = self._folder / f"{conversation_id}.json"
        # A full disk must not end a run: the chat stays in memory.
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, aside = tempfile.mkstemp(dir=self._folder, prefix=".chat-")
            try:
                with open(handle, "w", encoding="utf-8") as file:
                    json.dump({"format": _FORMAT, **asdict(conversation)}, file, ensure_ascii=False)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(aside, path)
            except BaseException:
                os.unlink(aside)
                raise


def export(conversation: Conversation) -> str:
    """A chat as Markdown: questions as headings, answers as they were written."""
    lines = [f"# {conversation.name}", ""]
    for one in conversation.answered:
        question = " ".join(one.turn.question.split())
        lines += [f"## {question}", "", one.turn.answer.strip(), ""]
        lines += [f"> {sentence}" for sentence in (one.notice, one.figures) if sentence]
        lines.append("")
    return "\n".join(lines)


def _name_of(question: str) -> str:
    words = " ".join(question.split())
    if len(words) <= _NAME_CHARACTERS // 2:
        return words
    return words[: _NAME_CHARACTERS // 2].rsplit(" ", 1)[0] + " …"


def _stored(folder: Path) -> list[Conversation]:
    """Those that can be read, oldest first."""
    found: list[tuple[float, Conversation]] = []
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found.append((path.stat().st_mtime, _from_json(json.loads(path.read_text("utf-8")))))
    found.sort(key=lambda pair: pair[0])
    return [conversation for _, conversation in found]


def _from_json(data: dict[str, Any]) -> Conversation:
    if data["format"] != _FORMAT:
        raise ValueError("of another version")
    answered = [
        Answered(
            Turn(
                str(one["turn"]["question"]),
                tuple(int(token_id) for token_id in one["turn"]["answer_ids"]),
                str(one["turn"]["answer"]),
            ),
            str(one["figures"]),
            str(one["notice"]),
            tuple(
                Citation(**{**citation, "also_in": tuple(citation["also_in"])})
                for citation in one["citations"]
            ),
            str(one["model"]),
        )
        for one in data["answered"]
    ]
    return Conversation(str(data["id"]), str(data["name"]), answered, len(answered))
