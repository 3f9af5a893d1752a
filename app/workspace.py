"""What the page looks at, kept on the server: model, documents, conversation, settings, run.

One person, one workspace. Every method returns at once; reading files happens in one thread,
the model's work in the worker. Document text never leaves this object for the page.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from app.documents import Document, read, receipt
from app.jobs import Failed, Job, Worker
from app.prompt import Prompt, PromptBuilder, TokenizedDocument, Turn
from app.timing import learn
from app.ui import view_state, wording
from app.ui.view_state import DocumentState, RunView
from mom_core.config import EngineConfig, HiddenTier, KVTier, SamplingConfig
from mom_core.errors import ContextTooLong, InvalidSetting, MomError
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


class Workspace:
    """Everything behind the page.

    Args:
        load_engine: makes the engine; called once, in the worker's thread.
        model_name: shown while it loads.
        config: what the page's settings are put into.
    """

    def __init__(
        self,
        load_engine: Callable[[], Engine],
        model_name: str,
        config: EngineConfig | None = None,
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
        self._documents: dict[str, DocumentState] = {}
        self._read: dict[str, Document] = {}
        self._tokenized: dict[str, TokenizedDocument] = {}
        self._answered: list[_Answered] = []
        self._job: Job | None = None
        self._run = RunView()
        self._seen_events = 0
        self._meter = Meter()
        self._sample: MemorySample | None = None
        self._chores: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._do_chores, name="mom-reader", daemon=True)
        self._reader.start()
        self._worker = Worker(self._touch)
        self._worker.submit(lambda: self._load(load_engine), self._loaded)

    def close(self) -> None:
        """Stops the run and deletes the uploaded files."""
        self._chores.put(None)
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
            self._builder = PromptBuilder(engine.tokenizer)
            self._meter.engine = engine
            self.model_name = engine.name
        yield from ()

    def _loaded(self, job: Job) -> None:
        with self._lock:
            for event in job.events():
                if isinstance(event, Failed):
                    self._model_error = event.sentence
            self._touch()
        for document_id in list(self._read):
            self._chores.put(functools.partial(self._count, document_id))

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded."""
        return self._engine is not None

    # Documents.

    def add(self, document_id: str, name: str, load: Callable[[], Document]) -> None:
        """Reads and counts a document in the background.

        Args:
            document_id: chosen by the caller, unique.
            name: for people.
            load: reads it; may raise `DocumentError`.
        """
        with self._lock:
            self._documents[document_id] = DocumentState(document_id, name)
            self._touch()
        self._chores.put(lambda: self._load_document(document_id, load))

    def add_path(self, document_id: str, path: Path, name: str) -> None:
        """Reads a file or folder of this machine in the background."""
        self.add(document_id, name, lambda: read(path, name))

    def remove(self, document_id: str) -> None:
        """Forgets a document and its uploaded files."""
        with self._lock:
            self._documents.pop(document_id, None)
            self._read.pop(document_id, None)
            self._tokenized.pop(document_id, None)
            self._touch()
        if document_id.isalnum():
            shutil.rmtree(self.folder / document_id, ignore_errors=True)

    def _do_chores(self) -> None:
        while (chore := self._chores.get()) is not None:
            chore()

    def _load_document(self, document_id: str, load: Callable[[], Document]) -> None:
        try:
            document = load()
        except MomError as fault:
            self._update(document_id, error=str(fault))
            return
        except Exception as fault:  # noqa: BLE001 - one bad file must not stop the others
            _LOG.exception("A document could not be read")
            self._update(
                document_id,
                error=f"It cannot be read: an unexpected error ({type(fault).__name__}: {fault}).",
            )
            return
        with self._lock:
            if document_id not in self._documents:
                return
            self._read[document_id] = document
        self._update(
            document_id,
            sections=wording.sections(len(document.sections), document.kind),
            left_out=tuple(f"{entry.path} ({entry.reason})" for entry in document.left_out),
        )
        if self.is_ready:
            self._count(document_id)

    def _count(self, document_id: str) -> None:
        with self._lock:
            document, builder = self._read.get(document_id), self._builder
            if document is None or builder is None or document_id in self._tokenized:
                return
        tokenized = builder.tokenize(document)
        with self._lock:
            if document_id not in self._documents:
                return
            self._tokenized[document_id] = tokenized
        self._update(
            document_id, tokens=tokenized.tokens, receipt=receipt(document, tokenized.tokens)
        )

    def _update(self, document_id: str, **changes: object) -> None:
        with self._lock:
            if document_id in self._documents:
                state = self._documents[document_id]
                self._documents[document_id] = replace(state, **changes)  # type: ignore[arg-type]
                self._touch()

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
            if self._job is not None and not self._job.is_over:
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
            return self._engine is None or any(
                not state.error and key not in self._tokenized
                for key, state in self._documents.items()
            )

    def _prompt(self, question: str) -> Prompt:
        with self._lock:
            if self._engine is None or self._builder is None:
                raise InvalidSetting(self._model_error)
            prompt = self._builder.build(
                [self._tokenized[key] for key, state in self._documents.items() if not state.error],
                [answered.turn for answered in self._answered],
                question,
            )
            window = self._engine.context_window_tokens
            if len(prompt.token_ids) > window:
                raise ContextTooLong(
                    f"Documents and conversation are {len(prompt.token_ids):,} tokens, and "
                    f"{self.model_name} reads at most {window:,}. Nothing was cut: remove a "
                    "document, start a new conversation, or use a model with a larger context."
                )
            return prompt

    def stop(self) -> None:
        """Ends the current run at its next event; nothing if there is none."""
        with self._lock:
            if self._job is not None:
                self._job.stop()

    def new_conversation(self) -> None:
        """Forgets the turns; documents stay, and what was read of them."""
        with self._lock:
            if self._job is not None and not self._job.is_over:
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
            run = self._run
            if run.run_id == job.id and run.answer_ids:
                turn = Turn(run.question, run.answer_ids, run.text)
                self._answered.append(_Answered(turn, run.status))
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
            is_busy = self._job is not None and not self._job.is_over
            return {
                "model": {
                    "name": self.model_name,
                    "status": self._model_status(),
                    "error": self._model_error,
                    "is_ready": self.is_ready,
                },
                "documents": view_state.documents_view(list(self._documents.values()), window),
                "run": {**view_state.run_view(run), "is_busy": is_busy},
                "turns": len(self._answered),
            }

    def _model_status(self) -> str:
        if self._engine is not None:
            return " ".join(self._engine.warnings)
        return "" if self._model_error else wording.LOADING

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
