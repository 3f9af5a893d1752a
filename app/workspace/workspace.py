"""What the page looks at, kept on the server: model, documents, conversations, settings, runs.

One person, one workspace, any number of tabs: each shows one conversation. Every method returns at
once; files are read in threads of the shelf, the model's work happens in the worker.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from app import wording
from app.citations import Citation, find_citations
from app.documents import DEFAULT_LIMITS, DiskCache, Limits
from app.library.library import Library
from app.library.reuse import Found, Reuse, generate
from app.prompt.prompt import Prompt, Span, Turn
from app.workspace.conversations import Answered, Conversation, Conversations
from app.workspace.documents import DocumentList
from app.workspace.forecasts import Compared, Forecaster, compare
from app.workspace.jobs import Job
from app.workspace.memory_timeline import MemoryTimeline, Now
from app.workspace.model import LoadEngine, ModelSlot
from app.workspace.next_question import NextQuestion
from app.workspace.run_queue import Runs
from app.workspace.run_view import Asked, RunView
from app.workspace.settings import Settings
from app.workspace.uploads import new_upload_folder
from mom_core.config import EngineConfig
from mom_core.errors import InvalidSetting
from mom_core.events import Event, Finished

if TYPE_CHECKING:
    from mom_core.engine import Engine
    from mom_core.forecast.forecast import RunForecast

_WAIT_SECONDS = 0.05


class Workspace:
    """Everything behind the page.

    Args:
        load_engine: makes an engine of a model's source; called in the worker's thread.
        model: the source it begins with, as for `Engine.load`.
        config: what the page's settings are put into.
        cache: of texts and tokens between runs; None keeps nothing.
        limits: of reading documents.
        chats_folder: where conversations are kept between runs; None keeps none.
        library: where what was read is kept between runs; None keeps nothing.
        clock: monotonic seconds, for how long nobody has looked at a run that waits.

    Attributes:
        lock: held while model, settings or turns change.
        last_foreseen: what was expected of the run on the timeline; None before the first.
        reading_spans: of each chat's prompt, where its parts lie.
        compared: for each chat, the last run's forecast and what came of it.
    """

    def __init__(
        self,
        load_engine: LoadEngine,
        model: str,
        config: EngineConfig | None = None,
        cache: DiskCache | None = None,
        limits: Limits = DEFAULT_LIMITS,
        chats_folder: Path | None = None,
        library: Library | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lock = threading.RLock()
        self._changed_count = 0
        self.folder = new_upload_folder()
        self._settings = Settings()
        self.documents = DocumentList(self.folder, self.changed, cache, limits)
        self.conversations = Conversations(chats_folder)
        self.library = library
        self._reuse = None if library is None else Reuse(library)
        self.runs = Runs(self.changed, clock)
        self._notices: dict[str, str] = {}
        self._foreseen: dict[str, RunForecast] = {}
        self.last_foreseen: RunForecast | None = None
        self.reading_spans: dict[str, tuple[Span, ...]] = {}
        self.compared: dict[str, Compared] = {}
        self.model = ModelSlot(
            load_engine,
            config or EngineConfig(),
            cache,
            self.runs,
            self.documents,
            self.lock,
            self.changed,
        )
        self._next = NextQuestion(
            self.model,
            self.documents,
            self.conversations,
            lambda: self._settings,
            self._reuse,
            self.lock,
        )
        self.history = MemoryTimeline(lambda: self.model.memory(0.0), self._now)
        self.forecaster = Forecaster(
            self._next.forecast, lambda: self._changed_count, lambda: self.runs.is_idle
        )
        self.model.load(model)

    def close(self) -> None:
        """Stops the runs and deletes the uploaded files."""
        self.forecaster.close()
        self.documents.close()
        self.runs.close()
        self.history.close()
        if self._reuse is not None:
            self._reuse.close()
        self.model.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # Questions.

    def ask(
        self, question: str | None, chat_id: str | None = None, turn: int | None = None
    ) -> None:
        """Starts a run, or lines it up behind those of other conversations.

        Args:
            question: of a person; None asks that of `turn` again.
            chat_id: the conversation; the newest if None.
            turn: the number of an earlier question that it takes the place of, from 0. That one
                and what follows it are dropped once there is an answer, and not before. None asks
                a new one.

        Raises:
            InvalidSetting: there is nothing to ask, or it cannot be asked now; a sentence says why.
            ContextTooLong: documents and conversation exceed the model's window.
        """
        with self.lock:
            chat = self._chat(chat_id)
            asked = _asked(chat, question, turn)
            if not asked.question:
                raise InvalidSetting(wording.EMPTY_QUESTION)
            if self.model.error:
                raise InvalidSetting(self.model.error)
            if self.runs.is_busy(chat.id):
                raise InvalidSetting(wording.BUSY)
            if not self._is_preparing():
                # Refused at once, while the question is still in its box.
                self._next.prompt(chat, asked)
            settings = self._settings

            def run() -> Generator[Event | None, None, None]:
                while self._is_preparing():
                    time.sleep(_WAIT_SECONDS)
                    yield None
                prompt, self._notices[chat.id] = self._next.prompt(chat, asked)
                engine = self.model.engine
                assert engine is not None
                self.model.meter.reset_peak()
                engine.configure(settings.engine_config(self.model.config))
                reuse = self._reuse
                found = None if reuse is None else reuse.look_up(engine, prompt.token_ids)
                self._foresee(chat.id, engine, prompt, found, settings.max_new_tokens)
                yield from self.history.following(
                    self._generate(chat.id, engine, prompt, found, settings)
                )

            self.runs.ask(chat.id, asked, run, lambda job: self._over(chat.id, job))

    def stop(self, chat_id: str | None = None) -> None:
        """Ends a conversation's run at its next event; nothing if there is none."""
        self.runs.stop(self.conversations.newest.id if chat_id is None else chat_id)

    def run(self, chat_id: str | None = None) -> RunView:
        """A conversation's current or last run, up to date."""
        return self.runs.view(self.conversations.newest.id if chat_id is None else chat_id)

    @property
    def is_busy(self) -> bool:
        """Whether any run is on."""
        return not self.runs.is_idle

    def _chat(self, chat_id: str | None) -> Conversation:
        return self.conversations.newest if chat_id is None else self.conversations.find(chat_id)

    def _is_preparing(self) -> bool:
        """Whether the model is being loaded or a document read and counted."""
        with self.lock:
            if self.model.error:
                return False
            return not self.model.is_ready or self.documents.is_preparing

    def _now(self) -> Now:
        """What the run at work does, for the timeline."""
        owner = self.runs.current
        job = self.runs.job(owner) if owner else None
        if job is None or job.is_over:
            return Now("", "idle", 0)
        view = self.runs.view(owner or "")
        return Now(job.id, view.phase, view.layer)

    def _foresee(
        self, chat_id: str, engine: Engine, prompt: Prompt, found: Found | None, new_tokens: int
    ) -> None:
        """A run begins: what is expected of it is kept, to be compared with what comes of it."""
        reused = self._next.known_tokens(engine, prompt.token_ids, found)
        foreseen = engine.forecast_run(
            len(prompt.token_ids), reused_tokens=reused, new_tokens=new_tokens
        )
        self.reading_spans[chat_id] = prompt.spans
        self._foreseen[chat_id] = self.last_foreseen = foreseen
        job = self.runs.job(chat_id)
        self.history.begin("" if job is None else job.id)

    def _generate(
        self,
        chat_id: str,
        engine: Engine,
        prompt: Prompt,
        found: Found | None,
        settings: Settings,
    ) -> Generator[Event, None, None]:
        """The run itself, with the library if there is one."""
        yield from generate(
            self._reuse,
            engine,
            prompt,
            (one.document for one in self.documents.chosen()),
            max_new_tokens=settings.max_new_tokens,
            sampling=settings.sampling(),
            found=found,
        )
        if self._reuse is None:
            return
        notes = self._reuse.take_notes()
        with self.lock:
            self._notices[chat_id] = " ".join([self._notices.get(chat_id, ""), *notes]).strip()

    def _over(self, chat_id: str, job: Job) -> None:
        """Keeps the finished (or stopped) answer as a turn; runs in the worker's thread."""
        run = self.runs.view(chat_id)
        if run.run_id == job.id and run.answer_ids:
            # Searching a long document takes a moment, in which the page must not wait.
            documents = [one.document for one in self.documents.chosen()]
            citations = tuple(find_citations(run.text, documents))
            turn = Turn(run.question, run.answer_ids, run.text)
            notice = self._notices.pop(chat_id, "")
            answered = Answered(turn, run.status, notice, citations, self.model.name)
            self.conversations.append(chat_id, answered, run.turn)
        self.changed()
        last = job.events()[-1:]
        engine = self.model.engine
        foreseen = self._foreseen.pop(chat_id, None)
        self.history.read()
        if foreseen and last and isinstance(last[0], Finished):
            finished = self.runs.without_pauses(chat_id, last[0])
            self.compared[chat_id] = compare(foreseen, finished, max(self.history.peak_bytes))
            self.changed()
        # A run that a person let wait says nothing of the machine's speed.
        if engine and last and isinstance(last[0], Finished) and not job.paused_seconds:
            engine.learn(last[0])
        if self.conversations.known(chat_id).id != chat_id:
            # Deleted while it was answered.
            self._forget(chat_id)

    # Conversations.

    def new_conversation(self) -> str:
        """An empty chat; documents stay, and what was read of them.

        Returns:
            Its id.
        """
        with self.lock:
            chat = self.conversations.new(self.runs.is_busy)
            # A run that failed or was stopped is not shown in a new chat.
            self.runs.forget(chat.id)
            self.changed()
            return chat.id

    def rename(self, chat_id: str, name: str) -> None:
        """See `Conversations.rename`."""
        self.conversations.rename(chat_id, name)
        self.changed()

    def delete(self, chat_id: str) -> None:
        """Stops a chat's run and forgets the chat.

        Raises:
            InvalidSetting: there is no such chat.
        """
        self.conversations.find(chat_id)
        self.runs.forget(chat_id)
        self.conversations.delete(chat_id)
        self._forget(chat_id)
        self.changed()

    def _forget(self, chat_id: str) -> None:
        """Nothing is left of a chat that was deleted."""
        for kept in (self._notices, self._foreseen, self.reading_spans, self.compared):
            kept.pop(chat_id, None)

    def shown(self, chat: Conversation) -> list[Answered]:
        """Its turns, without those whose places the run that is on is about to take."""
        if not self.runs.is_busy(chat.id):
            return list(chat.answered)
        return chat.answered[: self.runs.view(chat.id).turn]

    def answered_turn(self, chat_id: str, turn: int) -> Answered:
        """A turn of a conversation.

        Raises:
            InvalidSetting: there is none such.
        """
        with self.lock:
            answered = self.conversations.find(chat_id).answered
            if not 0 <= turn < len(answered):
                raise InvalidSetting("This answer is not here any more.")
            return answered[turn]

    def citation(self, chat_id: str, turn: int, number: int) -> Citation:
        """One citation of an answer.

        Raises:
            InvalidSetting: there is no such citation.
        """
        citations = self.answered_turn(chat_id, turn).citations
        if not 0 <= number < len(citations):
            raise InvalidSetting("This answer is not here any more.")
        return citations[number]

    # Settings, and what changed.

    def configure(self, **changes: object) -> Settings:
        """Changes settings; they hold from the next question on.

        Raises:
            InvalidSetting: a value is not allowed; the settings stay as they were.
        """
        with self.lock:
            settings = replace(self._settings, **changes)  # type: ignore[arg-type]
            settings.check(self.model.config)
            self._settings = settings
            self.changed()
            return settings

    @property
    def settings(self) -> Settings:
        """In force from the next question on."""
        return self._settings

    @property
    def version(self) -> int:
        """Changes whenever anything the page shows may have changed."""
        return self._changed_count

    def changed(self) -> None:
        """Something that the page shows may have changed."""
        self._changed_count += 1


def _asked(chat: Conversation, question: str | None, turn: int | None) -> Asked:
    """Raises `InvalidSetting` if the chat has no such turn."""
    turns = len(chat.answered)
    if turn is None:
        return Asked((question or "").strip(), turns)
    if not 0 <= turn < turns:
        raise InvalidSetting("There is no such question in this chat any more.")
    words = chat.answered[turn].turn.question if question is None else question
    return Asked(words.strip(), turn)
