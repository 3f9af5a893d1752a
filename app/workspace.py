"""What the page looks at, kept on the server: model, documents, conversation, settings, run.

One person, one workspace. Every method returns at once; files are read in threads of the shelf, the
model's work happens in the worker.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from app.citations import Citation, find_citations
from app.documents import DEFAULT_LIMITS, DiskCache, Limits
from app.fitting import fit
from app.jobs import Failed, Job, Worker
from app.prompt import Prompt, PromptBuilder, Turn
from app.shelf import Shelf
from app.timing import learn
from app.ui import view_state, wording
from app.ui.view_state import RunView
from mom_core.config import EngineConfig, HiddenTier, KVTier, SamplingConfig
from mom_core.errors import ContextTooLong, InvalidSetting
from mom_core.events import Event, Finished, MemorySample, PrefillProgress
from mom_core.memory.meter import Meter

if TYPE_CHECKING:
    from mom_core.engine import Engine

_WAIT_SECONDS = 0.05
_LOG = logging.getLogger(__name__)

OFFLOADS: dict[str, tuple[KVTier, HiddenTier]] = {
    "auto": ("auto", "auto"),
    "off": ("device", "device"),
    "KV to host": ("host", "device"),
    "KV + hidden to host": ("host", "host"),
    "KV + hidden to disk": ("disk", "disk"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a person may set on the page."""

    offload: str = "auto"
    chunk: str = "auto"
    max_new_tokens: int = 512
    temperature: float = 0.0
    fits_best_parts: bool = False

    def engine_config(self, base: EngineConfig) -> EngineConfig:
        """These settings put into others.

        Raises:
            InvalidSetting: one is not allowed.
        """
        if self.offload not in OFFLOADS:
            raise InvalidSetting(
                f"offload is {self.offload!r}; it must be one of {', '.join(OFFLOADS)}."
            )
        kv, hidden = OFFLOADS[self.offload]
        chunk = self.chunk.strip().replace(",", "")
        if chunk == "auto":
            return replace(base, chunk_tokens="auto", kv=kv, hidden=hidden)
        if not (chunk.isascii() and chunk.isdigit() and int(chunk) >= 1):
            raise InvalidSetting(
                f"The chunk size is {self.chunk!r}; it must be auto or a whole number of at least "
                "1, such as 1024."
            )
        return replace(base, chunk_tokens=int(chunk), kv=kv, hidden=hidden)


@dataclass(frozen=True, slots=True)
class _Answered:
    """A turn as the chat shows it."""

    turn: Turn
    figures: str
    citations: tuple[Citation, ...] = ()


class Workspace:
    """Everything behind the page.

    Args:
        load_engine: makes the engine; called once, in the worker's thread.
        model_name: shown while it loads.
        config: what the page's settings are put into.
        cache: of texts and tokens between runs; None keeps nothing.
        limits: of reading documents.
    """

    def __init__(
        self,
        load_engine: Callable[[], Engine],
        model_name: str,
        config: EngineConfig | None = None,
        cache: DiskCache | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._config = config or EngineConfig()
        self._lock = threading.RLock()
        self._changed_count = 0
        self.model_name = model_name
        self.folder = Path(tempfile.mkdtemp(prefix="mom-chat-"))
        self._engine: Engine | None = None
        self._builder: PromptBuilder | None = None
        self._model_error = ""
        self._settings = Settings()
        self._cache = cache
        self.shelf = Shelf(self.folder, self._touch, cache, limits)
        self._notice = ""
        self._answered: list[_Answered] = []
        self._job: Job | None = None
        self._run = RunView()
        self._seen_events = 0
        self._meter = Meter()
        self._sample: MemorySample | None = None
        self._worker = Worker(self._touch)
        self._worker.submit(lambda: self._load(load_engine), self._loaded)

    def close(self) -> None:
        """Stops the run and deletes the uploaded files."""
        self.shelf.close()
        self._worker.close()
        if self._engine is not None:
            self._engine.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # The model.

    def _load(self, load_engine: Callable[[], Engine]) -> Generator[Event, None, None]:
        engine = load_engine()
        if engine.tokenizer is None:
            raise InvalidSetting(f"{engine.name} comes without a tokenizer; it cannot read text.")
        with self._lock:
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

    # Conversation.

    def ask(self, question: str) -> None:
        """Starts a run.

        Raises:
            InvalidSetting: there is nothing to ask, or it cannot be asked now; a sentence says why.
            ContextTooLong: documents and conversation exceed the model's window.
        """
        question = question.strip()
        with self._lock:
            if not question:
                raise InvalidSetting(wording.EMPTY_QUESTION)
            if self._model_error:
                raise InvalidSetting(self._model_error)
            if self.is_busy:
                raise InvalidSetting(wording.BUSY)
            if not self._is_preparing():
                # Refused at once, while the question is still in its box.
                self._prompt(question)
            settings = self._settings
            config = settings.engine_config(self._config)
            sampling = SamplingConfig(temperature=settings.temperature)

            def run() -> Generator[Event | None, None, None]:
                while self._is_preparing():
                    time.sleep(_WAIT_SECONDS)
                    yield None
                prompt = self._prompt(question)
                assert self._engine is not None
                self._meter.reset_peak()
                self._engine.configure(config)
                yield from self._engine.generate(
                    prompt.token_ids,
                    max_new_tokens=settings.max_new_tokens,
                    sampling=sampling,
                    boundaries=prompt.boundaries,
                )

            job = self._worker.submit(run, self._over)
            self._job = job
            self._run = view_state.asked(job.id, question)
            self._seen_events = 0
            self._touch()

    def _is_preparing(self) -> bool:
        """Whether the model is being loaded or a document read and counted."""
        with self._lock:
            if self._model_error:
                return False
            return self._engine is None or self.shelf.is_preparing

    def _prompt(self, question: str) -> Prompt:
        with self._lock:
            if self._engine is None or self._builder is None:
                raise InvalidSetting(self._model_error)
            documents = self.shelf.chosen()
            turns = [answered.turn for answered in self._answered]
            prompt = self._builder.build(documents, turns, question)
            window = self._engine.context_window_tokens
            self._notice = ""
            if len(prompt.token_ids) > window and self._settings.fits_best_parts:
                others = len(prompt.token_ids) - sum(document.tokens for document in documents)
                room = window - others - self._settings.max_new_tokens
                fitted = fit(documents, question, room)
                self._notice = fitted.sentence
                prompt = self._builder.build(fitted.documents, turns, question)
            if len(prompt.token_ids) > window:
                raise ContextTooLong(
                    f"Documents and conversation are {len(prompt.token_ids):,} tokens, and "
                    f"{self.model_name} reads at most {window:,}. Nothing was cut: untick parts, "
                    "remove a document, start a new conversation, or use a model with a larger "
                    "context."
                )
            return prompt

    @property
    def is_busy(self) -> bool:
        """Whether a run is on."""
        return self._job is not None and not self._job.is_over

    def stop(self) -> None:
        """Ends the current run at its next event; nothing if there is none."""
        with self._lock:
            if self._job is not None:
                self._job.stop()

    def new_conversation(self) -> None:
        """Forgets the turns; documents stay, and what was read of them."""
        with self._lock:
            if self.is_busy:
                raise InvalidSetting(wording.BUSY)
            self._answered.clear()
            self._run = RunView()
            self._touch()

    def configure(self, **changes: object) -> Settings:
        """Changes settings; they hold from the next question on.

        Raises:
            InvalidSetting: a value is not allowed; the settings stay as they were.
        """
        with self._lock:
            settings = replace(self._settings, **changes)  # type: ignore[arg-type]
            settings.engine_config(self._config)
            SamplingConfig(temperature=settings.temperature)
            if settings.max_new_tokens < 1:
                raise InvalidSetting(
                    f"The limit of new tokens is {settings.max_new_tokens}; it must be a whole "
                    "number of at least 1."
                )
            self._settings = settings
            return settings

    @property
    def settings(self) -> Settings:
        """In force from the next question on."""
        return self._settings

    def _over(self, job: Job) -> None:
        """Keeps the finished (or stopped) answer as a turn; runs in the worker's thread."""
        with self._lock:
            self._fold()
            run, notice = self._run, self._notice
        if run.run_id == job.id and run.answer_ids:
            # Searching a long document takes a moment, in which the page must not wait.
            documents = [one.document for one in self.shelf.chosen()]
            citations = tuple(find_citations(run.text, documents))
            turn = Turn(run.question, run.answer_ids, run.text)
            with self._lock:
                figures = f"{notice} {run.status}".strip()
                self._answered.append(_Answered(turn, figures, citations))
        self._touch()
        last = job.events()[-1:]
        if self._engine is not None and last and isinstance(last[0], Finished):
            learn(self._engine, last[0])

    # What the page is told.

    @property
    def version(self) -> int:
        """Changes whenever anything the page shows may have changed."""
        return self._changed_count

    def _touch(self) -> None:
        self._changed_count += 1

    def _fold(self) -> None:
        if self._job is None:
            return
        events = self._job.events(self._seen_events)
        for event in events:
            self._run = view_state.apply(self._run, event)
        self._seen_events += len(events)
        if events and isinstance(events[-1], PrefillProgress):
            # Its place in the log may be taken by the next one.
            self._seen_events -= 1

    def run(self) -> RunView:
        """The current or last run, up to date."""
        with self._lock:
            self._fold()
            return self._run

    def state(self) -> dict[str, object]:
        """Everything small that the page shows, but for memory and the text of the answer."""
        with self._lock:
            run = self.run()
            window = self._engine.context_window_tokens if self._engine else None
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
                "citations": self._citations(),
                "run": {**view_state.run_view(run), "is_busy": self.is_busy},
                "turns": len(self._answered),
            }

    def _model_status(self) -> str:
        if self._engine is not None:
            return " ".join(self._engine.warnings)
        return "" if self._model_error else wording.LOADING

    def _citations(self) -> list[dict[str, object]]:
        """Those of the last answer, each with the place that a click on it opens."""
        last = self._answered[-1].citations if self._answered else ()
        return [
            {
                "text": wording.citation(citation),
                "found": citation.found,
                "quote": citation.quote or "",
                "place": self.shelf.place_of(citation.document, citation.section),
            }
            for citation in last
        ]

    def answered(self) -> list[tuple[str, str, str]]:
        """Question, answer and figures of each finished turn."""
        with self._lock:
            return [(a.turn.question, a.turn.answer, a.figures) for a in self._answered]

    def memory(self, max_age_seconds: float = 0.3) -> MemorySample:
        """A reading of the meter, shared by all tabs."""
        with self._lock:
            sample = self._sample
            if sample is None or time.monotonic() - sample.time_seconds > max_age_seconds:
                with contextlib.suppress(OSError):
                    self._sample = self._meter.sample()
            assert self._sample is not None
            return self._sample
