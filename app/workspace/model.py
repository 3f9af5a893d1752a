"""The place for the one model: loaded in the background, each in the place of the one before."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING

from app import wording
from app.documents import DiskCache
from app.prompt.prompt import PromptBuilder
from app.workspace.documents import DocumentList
from app.workspace.jobs import Failed, Job
from app.workspace.run_queue import Runs
from mom_core.config import EngineConfig
from mom_core.errors import InvalidSetting
from mom_core.events import Event, MemorySample
from mom_core.hardware.meter import Meter

if TYPE_CHECKING:
    from mom_core.engine import Engine

LoadEngine = Callable[[str, EngineConfig], "Engine"]


class ModelSlot:
    """The model that answers, and the meter of what it holds.

    Args:
        load_engine: makes an engine of a model's source; called in the worker's thread.
        config: what the page's settings are put into.
        cache: of tokens between runs; None keeps nothing.
        runs: in whose line a model is loaded.
        document_list: its documents are counted by the tokenizer of the model.
        lock: held while the model changes, by this and by whoever needs it to stay.
        changed: called whenever anything shown may have changed; must return at once.

    Attributes:
        name: of the model, or its source while it is loaded.
        source: as it was given to `load`.
        error: why there is no model, "" if there is or may yet be.
        engine: None while there is none.
        builder: of its prompts; None while there is none.
        meter: of memory; its peak begins anew with each run.
    """

    def __init__(
        self,
        load_engine: LoadEngine,
        config: EngineConfig,
        cache: DiskCache | None,
        runs: Runs,
        document_list: DocumentList,
        lock: threading.RLock,
        changed: Callable[[], None],
    ) -> None:
        self._load_engine = load_engine
        self._begun_with = self.config = config
        self._cache = cache
        self._runs = runs
        self._documents = document_list
        self._lock = lock
        self._changed = changed
        self.name = self.source = self.error = ""
        self.engine: Engine | None = None
        self.builder: PromptBuilder | None = None
        self.meter = Meter()
        self._sample: MemorySample | None = None

    def close(self) -> None:
        """Frees the model."""
        if self.engine is not None:
            self.engine.close()

    def load(self, source: str, context_tokens: int | None = None) -> None:
        """Loads a model in the background, in the place of the one that is there.

        Args:
            source: as for `Engine.load`.
            context_tokens: more than the model was made for stretches its positions by YaRN;
                None is what the config this slot began with says.

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
            if not self._runs.is_idle:
                raise InvalidSetting(wording.BUSY_MODEL)
            # In a list of its own, so that nothing else holds the old one when it is freed.
            old = [] if self.engine is None else [self.engine]
            self.engine = self.builder = None
            self.error, self.name, self.source = "", source, source
            self.meter.engine = None
            self._documents.wait_for_tokenizer()
            self._runs.do(lambda: self._load(source, config, old), self._loaded)
            self._changed()

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
            self.config = config
            self.engine = engine
            self.builder = PromptBuilder(engine.tokenizer, self._cache)
            self.meter.engine = engine
            self.name = engine.name
        yield from ()

    def _loaded(self, job: Job) -> None:
        with self._lock:
            for event in job.events():
                if isinstance(event, Failed):
                    self.error = event.sentence
            self._changed()
            if self.builder is not None:
                self._documents.use(self.builder)

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded."""
        return self.engine is not None

    @property
    def status(self) -> str:
        """A line for people; "" if there is nothing to say."""
        if self.engine is not None:
            return " ".join(self.engine.warnings)
        return "" if self.error else wording.LOADING

    def memory(self, max_age_seconds: float = 0.3) -> MemorySample:
        """A reading of the meter, shared by all tabs."""
        with self._lock:
            sample = self._sample
            if sample is None or time.monotonic() - sample.time_seconds > max_age_seconds:
                with contextlib.suppress(OSError):
                    self._sample = self.meter.sample()
            assert self._sample is not None
            return self._sample
