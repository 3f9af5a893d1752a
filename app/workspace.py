"""What the page looks at, kept on the server: model, documents, conversations, settings, runs.

One person, one workspace, any number of tabs: each shows one conversation. Every method returns at
once; files are read in threads of the shelf, the model's work happens in the worker.
"""

from __future__ import annotations

import contextlib
import gc
import shutil
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from app.citations import find_citations
from app.conversation import Answered, Conversation, Conversations
from app.documents import DEFAULT_LIMITS, DiskCache, Limits
from app.fitting import fit
from app.forecast import (
    AtWork,
    Compared,
    Forecast,
    Forecaster,
    PromptParts,
    compare,
    place_at,
)
from app.jobs import Failed, Job
from app.keeping import Keeping, generate
from app.library import Library
from app.memory_history import MemoryHistory, Now
from app.prompt import Prompt, PromptBuilder, Span, Turn
from app.runs import Runs
from app.settings import Settings
from app.shelf import Shelf
from app.timing import learn
from app.token_map import token_map
from app.ui import view_state, wording
from app.ui.view_state import RunView
from app.uploads import new_upload_folder
from mom_core.config import EngineConfig
from mom_core.errors import ContextTooLong, InvalidSetting
from mom_core.events import Event, Finished, MemorySample, PrefillProgress
from mom_core.memory.meter import Meter

if TYPE_CHECKING:
    from mom_core.engine import Engine
    from mom_core.memory.outlook import Outlook

_WAIT_SECONDS = 0.05
LoadEngine = Callable[[str, EngineConfig], "Engine"]


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
    ) -> None:
        self._load_engine = load_engine
        self._config = self._begun_with = config or EngineConfig()
        self._lock = threading.RLock()
        self._changed_count = 0
        self.model_name = self.source = model
        self.folder = new_upload_folder()
        self._engine: Engine | None = None
        self._builder: PromptBuilder | None = None
        self._model_error = ""
        self._settings = Settings()
        self._cache = cache
        self.shelf = Shelf(self.folder, self._touch, cache, limits)
        self.conversations = Conversations(chats_folder)
        self.library = library
        self._keeping = None if library is None else Keeping(library)
        self.runs = Runs(self._touch)
        self._notices: dict[str, str] = {}
        self._meter = Meter()
        self._sample: MemorySample | None = None
        self._foreseen: dict[str, Outlook] = {}
        self._last_foreseen: Outlook | None = None
        self._reading_spans: dict[str, tuple[Span, ...]] = {}
        self.compared: dict[str, Compared] = {}
        self.history = MemoryHistory(lambda: self.memory(0.0), self._now)
        self.forecaster = Forecaster(
            self._forecast, lambda: self._changed_count, lambda: self.runs.is_idle
        )
        self.load_model(model)

    def close(self) -> None:
        """Stops the runs and deletes the uploaded files."""
        self.forecaster.close()
        self.shelf.close()
        self.runs.close()
        self.history.close()
        if self._keeping is not None:
            self._keeping.close()
        if self._engine is not None:
            self._engine.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # The model.

    def load_model(self, source: str, context_tokens: int | None = None) -> None:
        """Loads a model in the background, in the place of the one that is there.

        Args:
            source: as for `Engine.load`.
            context_tokens: more than the model was made for stretches its positions by YaRN;
                None is what the config this workspace began with says.

        Raises:
            InvalidSetting: runs are on, or the source or the number is not allowed.
        """
        source = source.strip()
        if not source:
            raise InvalidSetting(
                "Name a model: smollm2-135m, an id on the model hub, a folder, or a .gguf file."
            )
        # Not that of the model before, whose window may have been stretched.
        config = self._begun_with
        if context_tokens is not None:
            config = replace(config, context_tokens=context_tokens, extend="yarn")
        with self._lock:
            if not self.runs.is_idle:
                raise InvalidSetting(wording.BUSY_MODEL)
            # In a list of its own, so that nothing else holds the old one when it is freed.
            old = [] if self._engine is None else [self._engine]
            self._engine = self._builder = None
            self._model_error, self.model_name, self.source = "", source, source
            self._meter.engine = None
            self.shelf.wait_for_tokenizer()
            self.runs.do(lambda: self._load(source, config, old), self._loaded)
            self._touch()

    def _load(
        self, source: str, config: EngineConfig, old: list[Engine]
    ) -> Generator[Event, None, None]:
        if old:
            # Two models at once may be more than there is room for.
            old.pop().close()
            gc.collect()
        engine = self._load_engine(source, config)
        if engine.tokenizer is None:
            raise InvalidSetting(f"{engine.name} comes without a tokenizer; it cannot read text.")
        with self._lock:
            self._config = config
            self._engine = engine
            self._builder = PromptBuilder(engine.tokenizer, self._cache)
            self._meter.engine = engine
            self.model_name = engine.name
        yield from ()

    def _loaded(self, job: Job) -> None:
        with self._lock:
            for event in job.events():
                if isinstance(event, Failed):
                    self._model_error = event.sentence
            self._touch()
            if self._builder is not None:
                self.shelf.use(self._builder)

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded."""
        return self._engine is not None

    @property
    def model_error(self) -> str:
        """Why there is no model, "" if there is or may yet be."""
        return self._model_error

    def timeline_lines(self) -> dict[str, object]:
        """Of the run on the timeline: limits, and what plain transformers would have needed."""
        sample, foreseen = self.memory(), self._last_foreseen
        return {
            "device_name": sample.device_name,
            "device_limit": (sample.device_total_bytes or 0) / 2**20,
            "host_limit": sample.host_total_bytes / 2**20,
            "standard": foreseen.standard_peak_bytes / 2**20 if foreseen else None,
        }

    @property
    def engine(self) -> Engine | None:
        """The model's engine; None while there is none."""
        return self._engine

    # Conversations and runs.

    def ask(self, question: str, chat_id: str | None = None) -> None:
        """Starts a run, or lines it up behind those of other conversations.

        Args:
            question: of a person.
            chat_id: the conversation; the newest if None.

        Raises:
            InvalidSetting: there is nothing to ask, or it cannot be asked now; a sentence says why.
            ContextTooLong: documents and conversation exceed the model's window.
        """
        question = question.strip()
        with self._lock:
            chat = self._chat(chat_id)
            if not question:
                raise InvalidSetting(wording.EMPTY_QUESTION)
            if self._model_error:
                raise InvalidSetting(self._model_error)
            if self.runs.is_busy(chat.id):
                raise InvalidSetting(wording.BUSY)
            if not self._is_preparing():
                # Refused at once, while the question is still in its box.
                self._prompt(chat, question)
            settings = self._settings

            def run() -> Generator[Event | None, None, None]:
                while self._is_preparing():
                    time.sleep(_WAIT_SECONDS)
                    yield None
                prompt = self._prompt(chat, question)
                engine = self._engine
                assert engine is not None
                self._meter.reset_peak()
                engine.configure(settings.engine_config(self._config))
                self._foresee(chat.id, engine, prompt, settings.max_new_tokens)
                yield from self.history.following(self._generate(chat.id, engine, prompt, settings))

            asked = view_state.Asked(question, len(chat.answered))
            self.runs.ask(chat.id, asked, run, lambda job: self._over(chat.id, job))

    def ask_again(self, turn: int, question: str | None = None, chat_id: str | None = None) -> None:
        """Answers a question anew, perhaps in other words; the turns after it are dropped.

        Args:
            turn: its number, from 0.
            question: other words for it; None keeps them.
            chat_id: the conversation; the newest if None.

        Raises:
            InvalidSetting: there is no such turn, or it cannot be asked now; all is as before.
            ContextTooLong: documents and conversation exceed the model's window; the same.
        """
        with self._lock:
            chat = self._chat(chat_id)
            if not 0 <= turn < len(chat.answered):
                raise InvalidSetting("There is no such question in this chat any more.")
            if self.runs.is_busy(chat.id):
                raise InvalidSetting(wording.BUSY)
            words = chat.answered[turn].turn.question if question is None else question
            taken = self.conversations.cut(chat.id, turn)
            try:
                self.ask(words, chat.id)
            except BaseException:
                for one in taken:
                    self.conversations.append(chat.id, one)
                raise

    def _generate(
        self, chat_id: str, engine: Engine, prompt: Prompt, settings: Settings
    ) -> Generator[Event, None, None]:
        """The run itself, with the library if there is one."""
        yield from generate(
            self._keeping,
            engine,
            prompt,
            (one.document for one in self.shelf.chosen()),
            max_new_tokens=settings.max_new_tokens,
            sampling=settings.sampling(),
        )
        if self._keeping is None:
            return
        notes, self._keeping.notes = self._keeping.notes, []
        with self._lock:
            self._notices[chat_id] = " ".join([self._notices.get(chat_id, ""), *notes]).strip()

    def _known_tokens(self, engine: Engine, token_ids: Sequence[int]) -> int:
        """Of a prompt's beginning, what is read already, here or in the library."""
        known = engine.context.common_prefix_tokens(token_ids)
        if self.library is None or known * 2 > len(token_ids):
            return known
        match = self.library.best_match(engine.fingerprint, token_ids)
        if match is None or not match.entry.is_whole:
            return known
        return max(known, match.common_tokens)

    def _foresee(self, chat_id: str, engine: Engine, prompt: Prompt, new_tokens: int) -> None:
        """A run begins: what is expected of it is kept, to be compared with what comes of it."""
        tokens, reused = len(prompt.token_ids), self._known_tokens(engine, prompt.token_ids)
        foreseen = engine.outlook(tokens, reused_tokens=reused, new_tokens=new_tokens)
        self._reading_spans[chat_id] = prompt.spans
        self._foreseen[chat_id] = self._last_foreseen = foreseen
        job = self.runs.job(chat_id)
        self.history.begin("" if job is None else job.id)

    def _forecast(self, chat_id: str) -> Forecast | None:
        """In the forecaster's thread."""
        with self._lock:
            engine, builder, settings = self._engine, self._builder, self._settings
            if engine is None or builder is None or self.shelf.is_preparing:
                return None
            documents, cells = self.shelf.chosen(), self.shelf.cells()
            turns = self._turns(self.conversations.known(chat_id).answered)
            config = self.engine_config()
        prompt = builder.build(documents, turns, "", settings.system)
        in_documents = sum(document.tokens for document in documents)
        reused = self._known_tokens(engine, prompt.token_ids)
        parts = PromptParts(
            documents=in_documents,
            conversation=len(prompt.token_ids) - in_documents,
            answer_room=settings.max_new_tokens,
            window=engine.context_window_tokens,
            reused=reused,
        )
        return Forecast(
            parts,
            engine.outlook(
                len(prompt.token_ids),
                reused_tokens=reused,
                new_tokens=settings.max_new_tokens,
                config=config,
            ),
            token_map(cells, prompt.spans, reused),
            # What could be dropped is told where nothing is.
            0 if documents else engine.longest_prompt_tokens(config),
            self.model_name,
        )

    def at_work(self, chat_id: str) -> AtWork | None:
        """What a conversation's run is doing; None if none is on."""
        job = self.runs.job(chat_id)
        if job is None or not self.runs.is_busy(chat_id):
            return None
        last = next(iter(job.events()[-1:]), None)
        reading = last if isinstance(last, PrefillProgress) else None
        view = self.runs.view(chat_id)
        place = place_at(self._reading_spans.get(chat_id, ()), view.at_tokens) if reading else ""
        position = self.runs.position(chat_id)
        status = wording.in_line(position) if position else view.status
        return AtWork(reading, place, status, job.is_paused)

    def _now(self) -> Now:
        """What the run at work does, for the timeline."""
        owner = self.runs.current
        job = self.runs.job(owner) if owner else None
        if job is None or job.is_over:
            return Now("", "idle", 0)
        view = self.runs.view(owner or "")
        return Now(job.id, view.phase, view.layer)

    def _chat(self, chat_id: str | None) -> Conversation:
        return self.conversations.newest if chat_id is None else self.conversations.find(chat_id)

    def _is_preparing(self) -> bool:
        """Whether the model is being loaded or a document read and counted."""
        with self._lock:
            if self._model_error:
                return False
            return self._engine is None or self.shelf.is_preparing

    def _prompt(self, chat: Conversation, question: str) -> Prompt:
        with self._lock:
            if self._engine is None or self._builder is None:
                raise InvalidSetting(self._model_error)
            documents = self.shelf.chosen()
            settings, window = self._settings, self._engine.context_window_tokens
            turns = self._turns(chat.answered)
            prompt = self._builder.build(documents, turns, question, settings.system)
            self._notices[chat.id] = ""
            if len(prompt.token_ids) > window and settings.fits_best_parts:
                others = len(prompt.token_ids) - sum(document.tokens for document in documents)
                room = window - others - settings.max_new_tokens
                fitted = fit(documents, question, room)
                self._notices[chat.id] = fitted.sentence
                prompt = self._builder.build(fitted.documents, turns, question, settings.system)
            if len(prompt.token_ids) > window:
                raise ContextTooLong(
                    f"Documents and conversation are {len(prompt.token_ids):,} tokens, and "
                    f"{self.model_name} reads at most {window:,}. Nothing was cut: untick parts, "
                    "remove a document, start a new chat, or use a model with a larger context."
                )
            return prompt

    def _turns(self, answered: Sequence[Answered]) -> list[Turn]:
        """The turns as this model reads them: the ids of another one's answers are not its own."""
        assert self._builder is not None
        return [
            one.turn if one.model == self.model_name else self._builder.retold(one.turn)
            for one in answered
        ]

    def stop(self, chat_id: str | None = None) -> None:
        """Ends a conversation's run at its next event; nothing if there is none."""
        self.runs.stop(self.conversations.newest.id if chat_id is None else chat_id)

    def new_conversation(self) -> str:
        """An empty chat; documents stay, and what was read of them.

        Returns:
            Its id.
        """
        with self._lock:
            chat = self.conversations.new(self.runs.is_busy)
            # A run that failed or was stopped is not shown in a new chat.
            self.runs.forget(chat.id)
            self._touch()
            return chat.id

    def rename(self, chat_id: str, name: str) -> None:
        """See `Conversations.rename`."""
        self.conversations.rename(chat_id, name)
        self._touch()

    def delete(self, chat_id: str) -> None:
        """Stops a chat's run and forgets the chat.

        Raises:
            InvalidSetting: there is no such chat.
        """
        self.conversations.find(chat_id)
        self.runs.forget(chat_id)
        self.conversations.delete(chat_id)
        self._touch()

    def configure(self, **changes: object) -> Settings:
        """Changes settings; they hold from the next question on.

        Raises:
            InvalidSetting: a value is not allowed; the settings stay as they were.
        """
        with self._lock:
            settings = replace(self._settings, **changes)  # type: ignore[arg-type]
            settings.check(self._config)
            self._settings = settings
            self._touch()
            return settings

    @property
    def settings(self) -> Settings:
        """In force from the next question on."""
        return self._settings

    def engine_config(self) -> EngineConfig:
        """The settings as the engine takes them."""
        with self._lock:
            return self._settings.engine_config(self._config)

    def _over(self, chat_id: str, job: Job) -> None:
        """Keeps the finished (or stopped) answer as a turn; runs in the worker's thread."""
        run = self.runs.view(chat_id)
        if run.run_id == job.id and run.answer_ids:
            # Searching a long document takes a moment, in which the page must not wait.
            documents = [one.document for one in self.shelf.chosen()]
            citations = tuple(find_citations(run.text, documents))
            turn = Turn(run.question, run.answer_ids, run.text)
            notice = self._notices.pop(chat_id, "")
            answered = Answered(turn, run.status, notice, citations, self.model_name)
            self.conversations.append(chat_id, answered)
        self._touch()
        last = job.events()[-1:]
        engine = self._engine
        foreseen = self._foreseen.pop(chat_id, None)
        self.history.read()
        if foreseen and last and isinstance(last[0], Finished):
            finished = self.runs.without_pauses(chat_id, last[0])
            self.compared[chat_id] = compare(foreseen, finished, max(self.history.peak_bytes))
            self._touch()
        # A run that a person let wait says nothing of the machine's speed.
        if engine and last and isinstance(last[0], Finished) and not job.paused_seconds:
            learn(engine, last[0])

    # What the page is told.

    @property
    def version(self) -> int:
        """Changes whenever anything the page shows may have changed."""
        return self._changed_count

    def _touch(self) -> None:
        self._changed_count += 1

    def run(self, chat_id: str | None = None) -> RunView:
        """A conversation's current or last run, up to date."""
        return self.runs.view(self.conversations.newest.id if chat_id is None else chat_id)

    def state(self, chat_id: str | None = None) -> dict[str, object]:
        """Everything small that a tab shows, but for memory and the text of the answer."""
        with self._lock:
            chat = (
                self.conversations.newest if chat_id is None else self.conversations.known(chat_id)
            )
            run = self.runs.view(chat.id)
            window = self._engine.context_window_tokens if self._engine else None
            job = self.runs.job(chat.id)
            is_busy = self.runs.is_busy(chat.id)
            position = self.runs.position(chat.id)
            return {
                "model": {
                    "name": self.model_name,
                    "status": self._model_status(),
                    "error": self._model_error,
                    "is_ready": self.is_ready,
                },
                "documents": view_state.documents_view(
                    self.shelf.states(),
                    window,
                    self.shelf.largest_parts,
                    self._settings.fits_best_parts,
                ),
                "citations": self._citations(chat),
                "run": {
                    **view_state.run_view(run),
                    "is_busy": is_busy,
                    "is_paused": is_busy and job is not None and job.is_paused,
                    "is_held": is_busy and job is not None and job.is_held,
                    "line": wording.in_line(position) if is_busy and position else "",
                },
                "chat": chat.id,
                "chats": [
                    {"id": one.id, "name": one.name, "is_busy": self.runs.is_busy(one.id)}
                    for one in self.conversations
                ],
                "turns": len(chat.answered),
                "revision": chat.revision,
                "can_change_model": self.runs.is_idle,
            }

    def _model_status(self) -> str:
        if self._engine is not None:
            return " ".join(self._engine.warnings)
        return "" if self._model_error else wording.LOADING

    @property
    def is_busy(self) -> bool:
        """Whether any run is on."""
        return not self.runs.is_idle

    def _citations(self, chat: Conversation) -> list[dict[str, object]]:
        """Those of the last answer, each with the place that a click on it opens."""
        last = chat.answered[-1].citations if chat.answered else ()
        each_once = {wording.citation(one): one for one in last}.values()
        return [view_state.citation_view(one, self.shelf.place_of) for one in each_once]

    def answered_turn(self, chat_id: str, turn: int) -> Answered:
        """A turn of a conversation.

        Raises:
            InvalidSetting: there is none such.
        """
        with self._lock:
            answered = self.conversations.find(chat_id).answered
            if not 0 <= turn < len(answered):
                raise InvalidSetting("This answer is not here any more.")
            return answered[turn]

    def citation(self, chat_id: str, turn: int, number: int) -> dict[str, object]:
        """One citation of an answer, with the place it opens.

        Raises:
            InvalidSetting: there is none such.
        """
        citations = self.answered_turn(chat_id, turn).citations
        if not 0 <= number < len(citations):
            raise InvalidSetting("This answer is not here any more.")
        return view_state.citation_view(citations[number], self.shelf.place_of)

    def memory(self, max_age_seconds: float = 0.3) -> MemorySample:
        """A reading of the meter, shared by all tabs."""
        with self._lock:
            sample = self._sample
            if sample is None or time.monotonic() - sample.time_seconds > max_age_seconds:
                with contextlib.suppress(OSError):
                    self._sample = self._meter.sample()
            assert self._sample is not None
            return self._sample
