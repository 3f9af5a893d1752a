"""The engine: a model, the contexts it has read, and the events of reading and answering.

It speaks token ids and typed events; text, documents and pages are other people's jobs. It does
one run at a time: the caller draws a generator, and closing it stops the run at the next
mini-sequence and frees what it held. What it consists of: `placement` (where things lie),
`reader` (prompts into contexts), `generate.answer` (the answer).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mom_core.config import EngineConfig, SamplingConfig
from mom_core.context import Context
from mom_core.errors import InvalidSetting
from mom_core.events import Event, Finished, ReadingEvent, Token
from mom_core.forecast.forecast import RunForecast
from mom_core.forecast.learn import learn
from mom_core.forecast.shape import ModelShape
from mom_core.generate.checkpoint import CheckpointWriter
from mom_core.generators import draw
from mom_core.held_bytes import HeldBytes, WorkingBytes
from mom_core.model.extend import set_context_window
from mom_core.model.fingerprint import model_fingerprint
from mom_core.model.seam.decoder import HFSeam
from mom_core.native.allocator import keep_freed_memory
from mom_core.placement import Placement
from mom_core.reader import Reader
from mom_core.reopen import reopen
from mom_core.run import Run, begin
from mom_core.strategy import Strategy
from mom_core.verify import (
    TESTED_MODEL_TYPES,
    ExactnessReceipt,
    made_up_tokens,
    refuse_unless_exact,
    verify,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Engine:
    """Exact long-context inference in little memory with a transformers decoder-only model.

    Args:
        model: any loaded decoder-only model of transformers; stays the plain module between
            calls.
        tokenizer: for the text of `Token` events; None gives token ids only.
        config: where things are kept and how finely the prompt is cut.
        name: shown to people; by default the model's own.

    Attributes:
        model: as given; with `EngineConfig(extend=...)` its rotary positions are changed for good.
        tokenizer: as given.
        name: shown to people.
        warnings: sentences to show to people, once.
        last_forecast: the decision of the last run: its settings, and why. One that does not fit
            was tried all the same, because a CPU has more memory to give than is free.
        seam: the model in parts.
        placement: where weights, keys, values and hidden states lie.

    Raises:
        InvalidSetting: the context window asked for cannot be had.
        UnsupportedModel: the model cannot be run exactly.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        config: EngineConfig | None = None,
        *,
        name: str | None = None,
    ) -> None:
        config = config or EngineConfig()
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.seam = HFSeam(model)
        self.name = name or model.config.name_or_path or type(model).__name__
        self.warnings = set_context_window(self.seam, self.name, config)
        self.last_forecast: RunForecast | None = None
        self.placement = Placement(self.seam, self.name, config)
        self._working = WorkingBytes()
        self._reader = Reader(self.seam, self.placement, self.name, self._working)
        self._forget()
        self._place_weights()
        if self.device.type == "cpu":
            keep_freed_memory()
        kind = self.seam.config.model_type
        if kind not in TESTED_MODEL_TYPES:
            made_up = made_up_tokens(self.seam.vocabulary_size)
            refuse_unless_exact(lambda: self.verify(made_up), self.name, kind)

    @classmethod
    def load(cls, source: str, config: EngineConfig | None = None) -> Engine:
        """Loads a model and puts an engine around it.

        Args:
            source: "smollm2-135m" (the built-in model, fetched once), an id on the model hub, a
                folder, or a `.gguf` file.
            config: as for `Engine`.

        Raises:
            ModelUnavailable: the files cannot be found, fetched or read.
            UnsupportedModel: the model cannot be run exactly.
        """
        from mom_core.model.load import load_model

        loaded = load_model(source, leaves_layers=True)
        return cls(loaded.model, loaded.tokenizer, config, name=loaded.name)

    # What the engine is.

    @property
    def config(self) -> EngineConfig:
        """The settings in force."""
        return self.placement.config

    def configure(self, config: EngineConfig) -> None:
        """Changes the settings; call it between runs.

        What was read stays; keys and values that now belong on another tier are moved there.

        Raises:
            OutOfMemory: that tier has no room for them; the settings are as before.
            InvalidSetting: the scratch folder cannot be used, or the context window would change,
                which takes a new engine; the settings are as before.
        """
        before = self.config
        if config == before:
            return
        if (config.context_tokens, config.extend) != (before.context_tokens, before.extend):
            raise InvalidSetting(
                "The context window is set when a model is loaded. Load the model again to change "
                "context_tokens or extend."
            )
        undo = self.placement.configure(config)
        try:
            if config.kv != "auto":
                self.placement.move(self._context, config.kv)
            self._place_weights()
        except BaseException:
            undo()
            raise

    def close(self) -> None:
        """Forgets what was read, deletes the engine's files, puts streamed weights back."""
        self._forget()
        self.placement.close()

    def _forget(self) -> None:
        # The old context is freed before the new one asks what is free.
        self._context = self.placement.new_context("device")
        self._context = self.new_context()

    def _place_weights(self) -> None:
        self.placement.place_weights(self._shortest_run())

    def _shortest_run(self) -> Strategy:
        """The settings for one token, whether or not it fits."""
        return self.placement.forecast_run(self._context, prompt_tokens=1).strategy

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.seam.device

    @property
    def dtype(self) -> torch.dtype:
        """Of weights, keys and values."""
        return self.seam.dtype

    @property
    def shape(self) -> ModelShape:
        """The model's numbers that memory and time depend on."""
        return self.placement.shape

    @property
    def context_window_tokens(self) -> int:
        """The longest prompt and answer together: what the model was made for, unless set."""
        return self.placement.window_tokens

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes one token takes in keys and values over all layers."""
        return self.placement.kv_bytes_per_token

    @property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end an answer: all that the model's generation config names."""
        generation = getattr(self.model, "generation_config", None)
        ids = generation.eos_token_id if generation is not None else None
        if ids is None:
            ids = self.seam.config.eos_token_id
        if ids is None:
            return frozenset()
        return frozenset([ids] if isinstance(ids, int) else ids)

    @property
    def held_bytes(self) -> HeldBytes:
        """Bytes held now, by tier and kind; any thread may ask."""
        store = self._context.store
        return HeldBytes(
            self.placement.weights_held
            + HeldBytes({(store.tier.name, "kv"): store.used_bytes})
            + self._working.now
            + self._context.unfinished.held_bytes
        )

    @functools.cached_property
    def fingerprint(self) -> dict[str, str]:
        """What keys and values depend on, as digests by name: see `model.fingerprint`."""
        config = self.config
        rope = [config.extend, config.context_tokens if config.extend != "off" else None]
        return model_fingerprint(self.model, self.tokenizer, dtype=self.dtype, rope=rope)

    # Contexts.

    @property
    def context(self) -> Context:
        """The engine's own context, used where none is named."""
        return self._context

    def use(self, context: Context) -> None:
        """Makes a context the engine's own; call it between runs."""
        self._context = context

    def new_context(self) -> Context:
        """An empty context."""
        return self.placement.new_context(self._shortest_run().kv)

    def reopen(self, folder: Path, forecast: RunForecast | None = None) -> Context:
        """Opens a context that was kept on disk, mapped from there; its reading may be unfinished.

        It is not the engine's own until `use` makes it that.

        Args:
            folder: the snapshot.
            forecast: the decision of the run that the context is for; None makes one.

        Raises:
            SnapshotUnusable: it is damaged, of another version, or of another model.
            OutOfMemory: there is no room for the hidden states of an unfinished reading.
        """

        def strategy(tokens: int) -> Strategy:
            return self._strategy(tokens) if forecast is None else forecast.strategy

        return reopen(folder, self.placement, self.fingerprint, self.name, strategy)

    def _strategy(self, tokens: int) -> Strategy:
        """The settings for a prompt in the engine's own context."""
        decided = self.placement.forecast_run(self._context, prompt_tokens=tokens)
        return self.placement.accept(decided)

    # Forecasts.

    def forecast_run(
        self,
        prompt_tokens: int,
        *,
        reused_tokens: int = 0,
        new_tokens: int = 512,
        config: EngineConfig | None = None,
    ) -> RunForecast:
        """What reading and answering a prompt will take, with the settings that "auto" chooses.

        It takes a few milliseconds, except the first call, which measures the machine's speed if
        that is not known yet (below a second; a few for a recurrent model on a GPU). Any thread
        may call it, also during a run.

        Args:
            prompt_tokens: S, the whole prompt.
            reused_tokens: tokens of it that need not be read.
            new_tokens: the most tokens of the answer.
            config: settings in place of the engine's own.
        """
        return self.placement.forecast_run(
            self._context,
            prompt_tokens=prompt_tokens,
            reused_tokens=reused_tokens,
            new_tokens=new_tokens,
            config=config,
            measures=True,
        )

    def longest_prompt_tokens(self, config: EngineConfig | None = None) -> int:
        """The longest prompt that this machine has room for and the model reads; 0 if none.

        Args:
            config: settings in place of the engine's own.
        """
        return self.placement.longest_prompt_tokens(self._context, config)

    def learn(self, finished: Finished) -> None:
        """Corrects later forecasts of this model's speed by what the last run took."""
        if self.last_forecast is not None:
            strategy = self.last_forecast.strategy
            learn(finished, self.shape, strategy, dtype=self.dtype, device=self.device)

    # Reading and answering.

    def read(
        self,
        prompt_ids: Sequence[int],
        context: Context | None = None,
        *,
        boundaries: Sequence[int] = (),
    ) -> Generator[ReadingEvent, None, Tensor]:
        """Makes a context hold exactly this prompt, reading only what it does not hold yet.

        The longest common prefix stays, the rest of the context is dropped. At least the last
        token is read, unless its logits are still known.

        Args:
            prompt_ids: the whole prompt, at least one token.
            context: the engine's own if None.
            boundaries: see `generate`.

        Yields:
            A `PrefillProgress` after every mini-sequence of every layer.

        Returns:
            The next token's logits `[V]`, fp32.

        Raises:
            ContextTooLong: the prompt exceeds the model's window.
            InvalidSetting: no tokens, or an id outside the vocabulary.
            OutOfMemory: there is no room.
        """
        run = self._begin(prompt_ids, context)
        yield from run.adapted
        return (yield from run.read(boundaries))

    def generate(
        self,
        prompt_ids: Sequence[int],
        *,
        max_new_tokens: int = 512,
        sampling: SamplingConfig | None = None,
        context: Context | None = None,
        boundaries: Sequence[int] = (),
        checkpoints: CheckpointWriter | None = None,
        forecast: RunForecast | None = None,
    ) -> Generator[Event, None, None]:
        """Reads a prompt (only what is new of it) and answers.

        Args:
            prompt_ids: the whole prompt.
            max_new_tokens: at least 1. The answer also ends where the model's window does.
            sampling: greedy if None.
            context: the engine's own if None.
            boundaries: positions in the prompt where a document or a turn ends, so that a
                recurrent model can go back to them. Other models need none.
            checkpoints: keeps the prompt on disk, during the reading and after it.
            forecast: the decision for this prompt, by `forecast_run`; None makes one.

        Yields:
            `PrefillProgress` while reading, `Token` for each new token, one `Finished`; an
            `Adapted` where memory was full.

        Raises:
            ContextTooLong: the prompt exceeds the model's window.
            InvalidSetting: no tokens, an id outside the vocabulary, or a bad `max_new_tokens`.
            OutOfMemory: there is no room.
        """
        if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
            raise InvalidSetting(
                f"max_new_tokens is {max_new_tokens!r}; it must be a whole number of at least 1."
            )
        started = time.perf_counter()
        run = self._begin(prompt_ids, context, max_new_tokens, forecast)
        yield from run.adapted
        logits = yield from run.read(boundaries, checkpoints)
        read_at = time.perf_counter()
        answer = run.answer(sampling or SamplingConfig(), self.tokenizer, self.eos_ids)
        reason = yield from answer.run(logits)
        yield Finished(
            reason=reason,
            prompt_tokens=len(prompt_ids),
            reused_tokens=run.reused_tokens,
            new_tokens=len(answer.new_ids),
            decode_steps=answer.steps.count,
            prefill_seconds=read_at - started,
            decode_seconds=time.perf_counter() - read_at,
            resumed_fraction=run.resumed_fraction,
        )

    def _begin(
        self,
        prompt_ids: Sequence[int],
        context: Context | None,
        max_new_tokens: int = 0,
        forecast: RunForecast | None = None,
    ) -> Run:
        run = begin(
            self.placement,
            self._reader,
            self._context if context is None else context,
            prompt_ids,
            max_new_tokens=max_new_tokens,
            forecast=forecast,
            stays=context is not None,
        )
        self.last_forecast = run.forecast
        if context is None:
            self._context = run.context
        return run

    def generate_ids(
        self,
        token_ids: Sequence[int],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
    ) -> list[int]:
        """The new tokens alone, for scripts; a token that ended the text is included.

        Args:
            token_ids: the whole prompt; what was read of it before is reused.
            max_new_tokens: at least 1.
            temperature: see `SamplingConfig`, as for all that follow.
            top_k: see `SamplingConfig`.
            top_p: see `SamplingConfig`.
            min_p: see `SamplingConfig`.
            repetition_penalty: see `SamplingConfig`.
            seed: see `SamplingConfig`.

        Raises:
            ContextTooLong: the prompt exceeds the model's window.
            InvalidSetting: a value is not allowed.
        """
        sampling = SamplingConfig(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
        )
        events = self.generate(token_ids, max_new_tokens=max_new_tokens, sampling=sampling)
        return [event.token_id for event in events if isinstance(event, Token)]

    def logits(self, token_ids: Sequence[int]) -> Tensor:
        """Next-token logits `[V]`, fp32, after reading all of `token_ids`.

        Args:
            token_ids: the whole prompt; what was read of it before is reused.

        Raises:
            ContextTooLong: the prompt exceeds the model's window.
            InvalidSetting: no tokens, or an id outside the vocabulary.
        """
        return draw(self.read(token_ids)).clone()

    def verify(self, token_ids: Sequence[int]) -> ExactnessReceipt:
        """The exactness receipt: these tokens through plain transformers and through the engine.

        The engine reads them in mini-sequences, and a second time all but the last, which it
        decodes. Plain transformers needs its ordinary memory for them, so give a slice.

        Args:
            token_ids: at least two.

        Raises:
            ContextTooLong: more tokens than the model's window.
            InvalidSetting: fewer than two tokens, or an id outside the vocabulary.
        """
        return verify(self.seam, self._reader, self.new_context(), list(token_ids))
