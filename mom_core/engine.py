"""The engine: a model, the contexts it has read, and the events of reading and answering.

It speaks token ids and typed events; text, documents and pages are other people's jobs. One run
at a time: the caller draws a generator, and closing it stops the run at the next mini-sequence
and frees what it held.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import psutil
import torch
from torch import Tensor

from mom_core.config import DecodeMode, EngineConfig, SamplingConfig, TierName
from mom_core.context import Context, common_tokens
from mom_core.errors import ContextTooLong, InvalidSetting, OutOfMemory, SnapshotUnusable
from mom_core.events import (
    Adapted,
    Event,
    Finished,
    FinishReason,
    PrefillProgress,
    ReadingEvent,
    Token,
)
from mom_core.forecast.capacity import Machine, Room
from mom_core.forecast.choose import (
    Asked,
    Decision,
    Refusal,
    decide,
    longest_context_tokens,
    ranking,
)
from mom_core.forecast.forecast import RunForecast, forecast_run
from mom_core.forecast.learn import learn
from mom_core.forecast.recurrent import RecurrentBytes, recurrent_bytes
from mom_core.forecast.seconds import rates_for
from mom_core.forecast.shape import ModelShape
from mom_core.forecast.strategy import Strategy
from mom_core.generate.checkpoint import CheckpointWriter
from mom_core.generate.decode import Steps, decode
from mom_core.generate.detokenize import StreamDetokenizer
from mom_core.generate.oom_recovery import DecodeRecovery
from mom_core.generate.prefill import PrefillPlan, WorkingBytes, prefill
from mom_core.generate.resume import PartialReading
from mom_core.generate.sampling import Sampler
from mom_core.hardware.gpu import device_free_bytes
from mom_core.hardware.host import free_disk_bytes, host_free_bytes, host_total_bytes, own_bytes
from mom_core.hardware.rates import Rates
from mom_core.kv.decode_kv import DecodeKV
from mom_core.kv.mapped import MappedFiles
from mom_core.kv.oom import FullMemory, full_memory, give_back_caches, memory_errors_as_sentences
from mom_core.kv.scratch import default_scratch_folder, sweep
from mom_core.kv.store import KVStore, kv_bytes_per_token
from mom_core.kv.tiers import Tier, device_tier, disk_tier, host_tier
from mom_core.kv.transfer import HiddenStates, Lanes
from mom_core.model.extend import set_context_window
from mom_core.model.fingerprint import difference, model_fingerprint
from mom_core.model.seam.cache import segment_cache
from mom_core.model.seam.decoder import HFSeam
from mom_core.model.seam.plain import plain_next_logits
from mom_core.model.work import layer_shapes
from mom_core.native.allocator import keep_freed_memory
from mom_core.snapshot.manifest import read_manifest
from mom_core.snapshot.open import open_snapshot
from mom_core.verify import (
    TESTED_MODEL_TYPES,
    ExactnessReceipt,
    made_up_tokens,
    receipt,
    refuse_unless_exact,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.cache_utils import Cache

# The tiers from fast to large.
_DOWNWARDS: tuple[TierName, ...] = get_args(TierName)
# Recurrent states are kept no nearer than this, and not so often that they take more than this
# share of what keys and values take. Of one context, so many are kept in the end.
_STATE_SPACING_TOKENS = 2048
_STATE_SHARE = 0.1
_KEPT_STATES = 64
# Of what a cap on host memory leaves, the share that pages of the disk tier may take.
_RESIDENT_SHARE = 0.5
# Room for new tokens reserved ahead; longer answers grow the store by further segments.
_RESERVED_NEW_TOKENS = 1024


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
        warnings: sentences to be shown to people, once.
        last_decision: the settings of the last run and why; a `Refusal` where it was run although
            this machine has no room for it, for a CPU has more to give than is free.

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
        self.model = model.eval()
        self.tokenizer = tokenizer
        self._config = config or EngineConfig()
        self._seam = HFSeam(model)
        self.name = name or model.config.name_or_path or type(model).__name__
        self.warnings = self._set_context_window()
        self._working = WorkingBytes()
        self._decoding: DecodeKV | None = None
        self._weights_bytes = _weights_bytes(model)
        self._shapes = layer_shapes(self._seam)
        self._state_bytes: int | None = None
        self.last_decision: Decision | Refusal | None = None
        self._files = MappedFiles(self._scratch_root())
        sweep(self._scratch_root())
        self._forget()
        self._place_weights()
        if self.device.type == "cpu":
            keep_freed_memory()
        if self._seam.config.model_type not in TESTED_MODEL_TYPES:
            made_up = made_up_tokens(self._seam.vocabulary_size)
            kind = self._seam.config.model_type
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

        config = config or EngineConfig()
        loaded = load_model(source, leaves_layers=True)
        return cls(loaded.model, loaded.tokenizer, config, name=loaded.name)

    # What the engine is.

    @property
    def config(self) -> EngineConfig:
        """The settings in force."""
        return self._config

    def configure(self, config: EngineConfig) -> None:
        """Changes the settings; call it between runs.

        What was read stays; keys and values that now belong on another tier are moved there.

        Raises:
            OutOfMemory: that tier has no room for them; the settings are as before.
            InvalidSetting: the scratch folder cannot be used, or the context window is to change,
                which takes a new engine; the same.
        """
        before, before_files = self._config, self._files
        if (config.context_tokens, config.extend) != (before.context_tokens, before.extend):
            raise InvalidSetting(
                "The context window is set when a model is loaded. Load the model again to change "
                "context_tokens or extend."
            )
        self._config = config
        try:
            if config.scratch_folder != before.scratch_folder:
                self._files = MappedFiles(self._scratch_root())
            if config.kv != "auto":
                self._move_kv(config.kv)
            self._place_weights()
        except BaseException:
            self._config, self._files = before, before_files
            raise

    def close(self) -> None:
        """Forgets what was read, deletes the engine's files, puts streamed weights back."""
        self._forget()
        self._seam.stream_weights(None)
        self._files.close()

    def _forget(self) -> None:
        self._context = self._new_context(device_tier(self.device))
        self._context = self.new_context()

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self._seam.device

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and keys and values."""
        return self._seam.dtype

    @functools.cached_property
    def shape(self) -> ModelShape:
        """The model's numbers that memory and time depend on."""
        return ModelShape.of(self._seam, self.name)

    @property
    def context_window_tokens(self) -> int:
        """The longest prompt and answer together: what the model was made for, unless set."""
        window = self._seam.context_window_tokens
        return window if self._config.context_tokens is None else self._config.context_tokens

    @property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end an answer: every one that the model's generation config names."""
        generation = getattr(self.model, "generation_config", None)
        ids = generation.eos_token_id if generation is not None else None
        if ids is None:
            ids = self._seam.config.eos_token_id
        if ids is None:
            return frozenset()
        return frozenset([ids] if isinstance(ids, int) else ids)

    @property
    def context(self) -> Context:
        """The context used where none is named."""
        return self._context

    @functools.cached_property
    def fingerprint(self) -> dict[str, str]:
        """What keys and values depend on, as digests by name: see `model.fingerprint`."""
        config = self._config
        rope = [config.extend, config.context_tokens if config.extend != "off" else None]
        return model_fingerprint(self.model, self.tokenizer, dtype=self.dtype, rope=rope)

    def reopen(self, folder: Path) -> Context:
        """A context that was kept on disk, mapped from there; also one that is not read to its end.

        It is not the engine's own until `use` makes it that.

        Args:
            folder: of the snapshot.

        Raises:
            SnapshotUnusable: it is damaged, of another version, or of another model.
            OutOfMemory: there is no room for the hidden states of a reading that is not over.
        """
        manifest = read_manifest(folder)
        if words := difference(self.fingerprint, manifest.fingerprint):
            raise SnapshotUnusable(
                f"The prepared document in {folder} was read by {manifest.model} with {words}, so "
                f"it cannot be used with {self.name} as it is loaded now. It is read again."
            )
        is_cpu = self.device.type == "cpu"
        name = self._kv_tier_name(manifest.tokens)
        # Files are mapped on the host; they go to a GPU when the context is used.
        context = self._new_context(self._tier(name if is_cpu or name != "device" else "host"))
        context._store.reserve(self._reserved_tokens(manifest.tokens))
        with memory_errors_as_sentences():
            opened = open_snapshot(folder, manifest, context._store, self.device)
        if (progress := manifest.progress) is None:
            context._token_ids = opened.token_ids
            context._next_logits, context._logits_at = opened.logits, manifest.tokens
            return context
        assert opened.hidden is not None
        context._token_ids = opened.token_ids[: progress.past]
        strategy = self._strategy(manifest.tokens, context._store)
        with memory_errors_as_sentences():
            hidden = HiddenStates(
                self._tier(strategy.hidden),
                self.device,
                Lanes(self.device),
                tokens=manifest.tokens - progress.past,
                width=int(opened.hidden.shape[2]),
                dtype=opened.hidden.dtype,
            )
            hidden.fill([opened.hidden])
        context._unfinished.reading = PartialReading(
            opened.token_ids[progress.past :],
            progress.past,
            progress.layer,
            progress.position,
            hidden,
            opened.logits,
        )
        return context

    def use(self, context: Context) -> None:
        """Makes a context the engine's own; call it between runs."""
        self._context = context

    def new_context(self) -> Context:
        """An empty context."""
        return self._new_context(self._tier(self._kv_tier_name(0)))

    def _new_context(self, tier: Tier) -> Context:
        seam = self._seam
        return Context(KVStore(len(seam.layers), tier, seam.recurrent_layers))

    # Bytes by kind, for the meter.

    @property
    def device_type(self) -> str:
        """ "cuda", "cpu", ..."""
        return self.device.type

    @property
    def weights_bytes(self) -> int:
        """Of the model's parameters and buffers."""
        return self._weights_bytes

    @property
    def weights_device_bytes(self) -> int:
        """Weights on the device; of streamed ones the two layers that are there in turn."""
        weights = self._seam.weights
        if weights is None:
            return self._weights_bytes
        return self._weights_bytes - weights.home_bytes + weights.device_bytes

    @property
    def weights_host_bytes(self) -> int:
        """Streamed weights at home on the host."""
        return self._home_bytes_on("host")

    @property
    def weights_disk_bytes(self) -> int:
        """Streamed weights at home on the disk."""
        return self._home_bytes_on("disk")

    def _home_bytes_on(self, tier: TierName) -> int:
        weights = self._seam.weights
        return weights.home_bytes if weights is not None and weights.home.name == tier else 0

    @property
    def kv_device_bytes(self) -> int:
        """Keys and values of the engine's own context on the device."""
        return self._kv_bytes_on("device")

    @property
    def kv_host_bytes(self) -> int:
        """Keys and values of the engine's own context on the host."""
        return self._kv_bytes_on("host")

    @property
    def kv_disk_bytes(self) -> int:
        """Keys and values of the engine's own context on the disk."""
        return self._kv_bytes_on("disk")

    def _kv_bytes_on(self, tier: TierName) -> int:
        store = self._context._store
        return store.used_bytes if store.tier.name == tier else 0

    @property
    def working_device_bytes(self) -> int:
        """The run's working buffers on the device."""
        decoding = self._decoding
        copied_bytes = 0 if decoding is None else decoding.used_bytes
        return self._working.device_bytes + copied_bytes + self._waiting_bytes("device")

    @property
    def working_host_bytes(self) -> int:
        """The run's working buffers on the host."""
        return self._working.host_bytes + self._waiting_bytes("host")

    @property
    def working_disk_bytes(self) -> int:
        """The run's working buffers on the disk."""
        return self._working.disk_bytes + self._waiting_bytes("disk")

    def _waiting_bytes(self, tier: TierName) -> int:
        """Hidden states of an interrupted reading that waits to be taken up."""
        return self._context._unfinished.hidden_bytes.get(tier, 0)

    @property
    def hidden_bytes(self) -> Mapping[TierName, int]:
        """Of the working buffers, the hidden states between layers, by tier."""
        return self._working.hidden_bytes

    # Reading and answering.

    def prefill(
        self,
        token_ids: Sequence[int],
        context: Context | None = None,
        *,
        boundaries: Sequence[int] = (),
    ) -> Generator[ReadingEvent, None, Tensor]:
        """Reads tokens and appends them to a context.

        Args:
            token_ids: at least one.
            context: the engine's own if None.
            boundaries: see `generate`.

        Yields:
            A `PrefillProgress` after every mini-sequence of every layer.

        Returns:
            The next token's logits `[V]`, fp32.

        Raises:
            ContextTooLong: the context would exceed the model's window.
            InvalidSetting: no tokens, or an id outside the vocabulary.
            OutOfMemory: there is no room; the context is as before.
        """
        context = self._context if context is None else context
        self._check_ids(token_ids)
        self._check_fits(context.tokens + len(token_ids))
        return (
            yield from self._append(
                context, list(token_ids), reused_tokens=context.tokens, boundaries=boundaries
            )
        )

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
        context, reused, moved = self._reuse(prompt_ids, context)
        yield from moved
        return (yield from self._read_rest(context, prompt_ids, reused, boundaries))

    def generate(
        self,
        prompt_ids: Sequence[int],
        *,
        max_new_tokens: int = 512,
        sampling: SamplingConfig | None = None,
        context: Context | None = None,
        boundaries: Sequence[int] = (),
        checkpoints: CheckpointWriter | None = None,
    ) -> Generator[Event, None, None]:
        """Reads a prompt (only what is new of it) and answers.

        Args:
            prompt_ids: the whole prompt.
            max_new_tokens: at least 1. The answer also ends where the model's window does.
            sampling: greedy if None.
            context: the engine's own if None.
            boundaries: positions in the prompt where a document or a turn ends, so that a
                recurrent model can go back to them. Other models need none.
            keeper: keeps the prompt on disk, while it is read and when it is.

        Yields:
            `PrefillProgress` while reading, `Token` for each new token, one `Finished`.

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
        context, reused, moved = self._reuse(prompt_ids, context)
        yield from moved
        resumed_fraction = 0.0
        reading = self._read_rest(context, prompt_ids, reused, boundaries, checkpoints)
        while True:
            try:
                event = next(reading)
            except StopIteration as end:
                logits: Tensor = end.value
                break
            if isinstance(event, PrefillProgress):
                resumed_fraction = max(resumed_fraction, event.resumed_fraction)
            yield event
        if checkpoints is not None:
            checkpoints.done(context._token_ids, context._store, logits)
        first_logits_at = time.perf_counter()
        sampler = Sampler(sampling or SamplingConfig(), context._token_ids)
        detokenizer = StreamDetokenizer(self.tokenizer)
        # The last token of an answer is never read, so it needs no place in the window.
        most = min(max_new_tokens, self.context_window_tokens - len(prompt_ids) + 1)
        # A recurrent state cannot go back over the rejected part of a draft.
        is_off = self._config.lookup == "off" or self._seam.recurrent_layers
        lookup = None if is_off else context._lookup
        if lookup is not None:
            lookup.begin(context._token_ids, most)
        new_ids: list[int] = []
        steps = Steps()
        reason: FinishReason | None = None
        recovery = DecodeRecovery(self.device)
        while reason is None:
            full: FullMemory | None = None
            with memory_errors_as_sentences():
                try:
                    with self._decode_kv(context, most - len(new_ids), recovery) as cache:
                        answer = decode(
                            self._seam,
                            context._store,
                            cache,
                            context._token_ids,
                            logits,
                            first_index=len(new_ids),
                            max_new_tokens=most,
                            read_limit=self._rope_limit_after(context.tokens),
                            eos_ids=self.eos_ids,
                            sampler=sampler,
                            lookup=lookup,
                            detokenizer=detokenizer,
                            steps=steps,
                        )
                        while True:
                            try:
                                token = next(answer)
                            except StopIteration as end:
                                reason = end.value
                                break
                            new_ids.append(token.token_id)
                            yield token
                except BaseException as error:
                    full = full_memory(error)
                    if full is None:
                        raise
                    recovery.failed(error, context.tokens)
                if full is not None:
                    adapted = recovery.make_room(context._store, full, self._tiers)
                    if adapted is not None:
                        yield adapted
            held = context.tokens
            missing = [*prompt_ids[held:], *new_ids[max(0, held - len(prompt_ids)) :]]
            if reason is None and missing:
                # Memory was full, and a recurrent state may have gone back some way; or beyond
                # this length every position is rotated otherwise, and all is read again.
                logits = yield from self._append(context, missing, reused_tokens=0)
        yield Finished(
            reason=reason,
            prompt_tokens=len(prompt_ids),
            reused_tokens=reused,
            new_tokens=len(new_ids),
            decode_steps=steps.count,
            prefill_seconds=first_logits_at - started,
            decode_seconds=time.perf_counter() - first_logits_at,
            resumed_fraction=resumed_fraction,
        )

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
        """The new tokens alone, for scripts; an end-of-text token that ended them included.

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
        reading = self.read(token_ids)
        while True:
            try:
                next(reading)
            except StopIteration as end:
                logits: Tensor = end.value
                return logits.clone()

    def verify(self, token_ids: Sequence[int]) -> ExactnessReceipt:
        """The exactness receipt: these tokens through plain transformers and through us.

        The engine reads them in mini-sequences, and a second time all but the last, which it
        decodes. Plain transformers needs its ordinary memory for them, so give a slice.

        Args:
            token_ids: at least two.

        Raises:
            ContextTooLong: more tokens than the model's window.
            InvalidSetting: fewer than two tokens, or an id outside the vocabulary.
        """
        self._check_ids(token_ids)
        self._check_fits(len(token_ids))
        if len(token_ids) < 2:
            raise InvalidSetting("verify got 1 token; give it at least two.")
        ids = list(token_ids)
        context = self.new_context()
        plan = PrefillPlan(chunk_tokens=max(1, len(ids) // 3), hidden_tier=device_tier(self.device))

        def read(part: list[int]) -> Tensor:
            context.crop(0)
            reading = prefill(
                self._seam,
                context._store,
                part,
                reused_tokens=0,
                plan=plan,
                shapes=self._shapes,
                working=self._working,
            )
            while True:
                try:
                    next(reading)
                except StopIteration as end:
                    context._token_ids[:] = part
                    logits: Tensor = end.value
                    return logits

        ways = [read(ids)]
        if self._rope_limit_after(len(ids)) == self._rope_limit_after(len(ids) - 1):
            read(ids[:-1])
            ways.append(self._seam.stepper(context._cache)(ids[-1:], len(ids) - 1)[0])
        with self._seam.whole_model():
            plain = plain_next_logits(self.model, ids)
        return receipt(plain, ways, len(ids), self.dtype)

    # How it is done.

    def _set_context_window(self) -> tuple[str, ...]:
        """What people are to be told about the window asked for."""
        tokens = self._config.context_tokens
        if tokens is None:
            return ()
        by_yarn = self._config.extend == "yarn"
        warning = set_context_window(self._seam, self.name, tokens, by_yarn=by_yarn)
        return (warning,) if warning else ()

    def _reuse(
        self, prompt_ids: Sequence[int], context: Context | None
    ) -> tuple[Context, int, list[Adapted]]:
        """The context cropped to what it shares with the prompt, how many tokens that is, and
        what had to change for it."""
        self._check_ids(prompt_ids)
        self._check_fits(len(prompt_ids))
        is_own = context is None
        context = self._context if context is None else context
        common = context.common_prefix_tokens(prompt_ids)
        if self._rope_limit_after(context.tokens) != self._rope_limit_after(len(prompt_ids)):
            common = 0
        if common == len(prompt_ids) and not context.knows_logits_at(common):
            common -= 1
        context.crop(common)
        moved: list[Adapted] = []
        if is_own:
            moved = self._settle(self._kv_tier_name(len(prompt_ids)))
            context = self._context
        return context, context.tokens, moved

    def _settle(self, wanted: TierName) -> list[Adapted]:
        """The engine's own context lies where the prompt it will hold belongs, or lower."""
        now = self._context._store.tier.name
        if not self._context.tokens and not self._context.has_unfinished:
            if wanted != now:
                self._context = self._new_context(self._tier(wanted))
            return []
        # What "auto" once sent down is not fetched up again for a prompt that goes on with it.
        if self._config.kv == "auto" and _DOWNWARDS.index(wanted) <= _DOWNWARDS.index(now):
            return []
        places = _DOWNWARDS[_DOWNWARDS.index(wanted) :]
        for place in places:
            try:
                self._move_kv(place)
            except OutOfMemory:
                if place == places[-1]:
                    raise
                give_back_caches()
                continue
            break
        if place == wanted:
            return []
        return [
            Adapted(
                what="kv",
                before=wanted,
                after=place,
                full="device" if wanted == "device" and self.device.type != "cpu" else "host",
                phase="move",
                at_layer=None,
                at_token=self._context.tokens,
            )
        ]

    def _move_kv(self, wanted: TierName) -> None:
        store = self._context._store
        if wanted == store.tier.name:
            return
        with memory_errors_as_sentences():
            if wanted == "disk":
                self._files.require(store.used_bytes)
            store.move_to(self._tier(wanted))

    def _read_rest(
        self,
        context: Context,
        prompt_ids: Sequence[int],
        reused: int,
        boundaries: Sequence[int],
        checkpoints: CheckpointWriter | None = None,
    ) -> Generator[ReadingEvent, None, Tensor]:
        if reused == len(prompt_ids) and context._next_logits is not None:
            context.drop_unfinished()
            return context._next_logits
        return (
            yield from self._append(
                context,
                list(prompt_ids[reused:]),
                reused_tokens=reused,
                boundaries=boundaries,
                checkpoints=checkpoints,
            )
        )

    def _append(
        self,
        context: Context,
        token_ids: list[int],
        *,
        reused_tokens: int,
        boundaries: Sequence[int] = (),
        checkpoints: CheckpointWriter | None = None,
    ) -> Generator[ReadingEvent, None, Tensor]:
        store = context._store
        total = context.tokens + len(token_ids)
        if self._rope_limit_after(context.tokens) != self._rope_limit_after(total):
            token_ids = [*context.token_ids, *token_ids]
            context.crop(0)
        strategy = self._strategy(total, store)
        self._place_weights(strategy)
        reserved = self._reserved_tokens(total)
        store.reserve(reserved)
        files_bytes = 0
        if store.tier.name == "disk":
            files_bytes += self.kv_bytes_per_token * (reserved - context.tokens)
        if strategy.hidden == "disk":
            files_bytes += len(token_ids) * self._seam.hidden_size * self.dtype.itemsize
        self._prepare_files(files_bytes)
        plan = PrefillPlan(
            chunk_tokens=strategy.chunk_tokens,
            hidden_tier=self._tier(strategy.hidden),
            keep_states_at=self._keep_states_at(total, boundaries),
            stages_kv=strategy.stages_kv,
            tiers=self._tiers,
        )
        resumed = self._take_up(context, token_ids)
        # Of a reading that serves only in part, files of that part alone cannot be made.
        if checkpoints is not None and resumed in (0, len(token_ids)):
            checkpoints.begin([*context._token_ids, *token_ids], store)
        logits: Tensor | None = None
        for part in (token_ids[:resumed], token_ids[resumed:]):
            if not part:
                continue
            with memory_errors_as_sentences():
                logits = yield from prefill(
                    self._seam,
                    store,
                    part,
                    reused_tokens=reused_tokens,
                    plan=plan,
                    shapes=self._shapes,
                    working=self._working,
                    unfinished=context._unfinished,
                    checkpoints=checkpoints,
                )
            context._token_ids.extend(part)
        store.thin_states(_KEPT_STATES)
        assert logits is not None
        context._next_logits = logits
        context._logits_at = context.tokens
        return logits

    def _take_up(self, context: Context, token_ids: list[int]) -> int:
        """How many of these tokens an interrupted reading goes on with; else it is dropped."""
        reading = context._unfinished.reading
        if reading is None:
            return 0
        whole, common = len(reading.token_ids), common_tokens(reading.token_ids, token_ids)
        lengths = [reading.past + n for n in (common, whole, len(token_ids))]
        is_same = reading.past == context.tokens and (
            len({self._rope_limit_after(length) for length in lengths}) == 1
        )
        if common and is_same and reading.crop(context._store, common):
            return len(reading.token_ids)
        context.drop_unfinished()
        return 0

    def _rope_limit_after(self, tokens: int) -> int | None:
        """The length up to which positions are rotated as in a sequence of `tokens` tokens."""
        limit = self._seam.rope_limit()
        return limit if limit is not None and tokens <= limit else None

    def _keep_states_at(self, total: int, boundaries: Sequence[int]) -> frozenset[int]:
        """Where recurrent states are kept: at the boundaries, and every so often between."""
        if not self._seam.recurrent_layers:
            return frozenset()
        if self._state_bytes is None:
            with memory_errors_as_sentences():
                self._state_bytes = self._measured_state_bytes()
        per_token = max(1, self.kv_bytes_per_token)
        spacing = max(_STATE_SPACING_TOKENS, int(self._state_bytes / (_STATE_SHARE * per_token)))
        return frozenset(boundaries) | frozenset(range(spacing, total, spacing))

    def _measured_state_bytes(self) -> int:
        """Of one set of recurrent states: after a single made-up token they have their size."""
        scratch = self._new_context(device_tier(self.device))
        here = device_tier(self.device)
        plan = PrefillPlan(chunk_tokens=1, hidden_tier=here, tiers=self._tiers)
        for _ in prefill(
            self._seam,
            scratch._store,
            [0],
            reused_tokens=0,
            plan=plan,
            shapes=self._shapes,
            working=self._working,
        ):
            pass
        return sum(state.state_bytes for state in scratch._store.states)

    def _check_ids(self, token_ids: Sequence[int]) -> None:
        if len(token_ids) == 0:
            raise InvalidSetting("The prompt has no tokens; give it at least one.")
        lowest, highest = min(token_ids), max(token_ids)
        if lowest < 0 or highest >= self._seam.vocabulary_size:
            wrong = lowest if lowest < 0 else highest
            raise InvalidSetting(
                f"The prompt has the token id {wrong}; {self.name} knows ids from 0 to "
                f"{self._seam.vocabulary_size - 1}. Was it made with another tokenizer?"
            )

    def _check_fits(self, tokens: int) -> None:
        if tokens > self.context_window_tokens:
            raise ContextTooLong(
                f"The prompt has {tokens:,} tokens, and {self.name} can read at most "
                f"{self.context_window_tokens:,}. Nothing was cut: leave out "
                f"{tokens - self.context_window_tokens:,} tokens, or choose a model with a "
                "longer context window."
            )

    @contextmanager
    def _decode_kv(
        self, context: Context, new_tokens: int, recovery: DecodeRecovery
    ) -> Iterator[Cache]:
        """The context's cache as an answer uses it; afterwards all is home and its bytes freed."""
        store = context._store
        mode = recovery.mode_at_most(self._decode_mode(store))
        windows = [self._seam.window_of_layer(i) for i in range(len(store.layers))]
        kv = DecodeKV(store, mode, self.device, windows, new_tokens)
        self._decoding = kv
        try:
            yield segment_cache(kv.layers)
        finally:
            kv.close()
            self._decoding = None

    # "auto", decided.

    def _tier(self, name: TierName) -> Tier:
        if name == "disk":
            return disk_tier(self.device, self._files)
        return device_tier(self.device) if name == "device" else host_tier(self.device)

    @property
    def _tiers(self) -> tuple[Tier, ...]:
        return tuple(self._tier(name) for name in _DOWNWARDS)

    def _kv_tier_name(self, tokens: int) -> TierName:
        """Where keys and values of a prompt belong."""
        if self._config.kv != "auto":
            return self._config.kv
        return self._strategy(tokens).kv

    def _decode_mode(self, store: KVStore) -> DecodeMode:
        """How keys and values away from the device are attended to."""
        if self._config.decode != "auto":
            return self._config.decode
        if self.device.type == "cpu" or store.tier.name == "device":
            return "host"
        # What was read is here: that nothing fits would not matter any more.
        return self._decide(store.tokens, store).forecast.strategy.decode

    def _strategy(self, total: int, store: KVStore | None = None) -> Strategy:
        """The fastest settings that fit a context, beside those that were asked for.

        Args:
            total: tokens that the context comes to.
            store: of a context whose keys and values stay on their tier.

        Raises:
            OutOfMemory: the GPU, or the memory that a person allows, has no room for it,
                whatever the settings.
        """
        found, config = self._decide(total, store), self._config
        strategy = found.forecast.strategy
        is_bound = strategy.device_type == "cuda" or config.host_memory or config.device_memory
        if isinstance(found, Refusal) and is_bound and total:
            raise OutOfMemory(found.sentence)
        # A CPU's memory has more to give than is free; what comes nearest is tried.
        self.last_decision = found
        return strategy

    def _decide(self, total: int, store: KVStore | None = None) -> Decision | Refusal:
        total, machine = max(1, total), self._machine(self._config, store)
        # On a GPU ways are ranked by their seconds, so that its rates are measured once.
        rates = self._rates if self.device.type == "cuda" else None
        return decide(
            self.shape,
            self._recurrent_here,
            total,
            machine,
            asked=self._asked(self._config, store),
            seconds=ranking(self.shape, total, machine, rates),
        )

    def forecast_run(
        self,
        prompt_tokens: int,
        *,
        reused_tokens: int = 0,
        new_tokens: int = 512,
        config: EngineConfig | None = None,
    ) -> RunForecast:
        """What reading and answering a prompt will take, with the settings "auto" chooses.

        A few milliseconds, but for the first call, which measures the machine's speed if that is
        not known yet (below a second, and a few for a recurrent model on a GPU). Any thread may
        call it, while a run goes on, too.

        Args:
            prompt_tokens: S, of the whole prompt.
            reused_tokens: of them, how many the context holds already.
            new_tokens: of the answer, at most.
            config: settings in place of the engine's own.
        """
        config = config or self._config
        return forecast_run(
            self.shape,
            self._recurrent_here,
            self._machine(config),
            prompt_tokens=prompt_tokens,
            reused_tokens=reused_tokens,
            new_tokens=new_tokens,
            asked=self._asked(config),
            rates=self._rates,
            device=self.device,
        )

    def learn(self, finished: Finished) -> None:
        """Corrects later forecasts of this model's speed by what the last run took."""
        if self.last_decision is not None:
            strategy = self.last_decision.forecast.strategy
            learn(finished, self.shape, strategy, dtype=self.dtype, device=self.device)

    def longest_prompt_tokens(self, config: EngineConfig | None = None) -> int:
        """The longest prompt that this machine has room for and the model reads; 0 if none.

        Args:
            config: settings in place of the engine's own.
        """
        config = config or self._config
        longest = longest_context_tokens(
            self.shape, self._recurrent_here, self._machine(config), asked=self._asked(config)
        )
        return min(longest, self.context_window_tokens)

    def _machine(self, config: EngineConfig, store: KVStore | None = None) -> Machine:
        """What may be held in all: the forecast counts weights and KV, which are there already.

        Args:
            config: whose caps hold.
            store: the keys and values that are counted anew; those of the engine's own context
                if None.
        """
        room = self._room(config, self._context._store if store is None else store)
        on_device, on_host = self._weights_held()
        device_bytes = room.device_bytes
        if device_bytes is None:
            on_host += on_device
        else:
            device_bytes = max(0, device_bytes + on_device)
        taken_bytes = 0
        if config.host_memory is not None or (device_bytes is None and config.device_memory):
            taken_bytes = max(0, own_bytes() - on_host)
        return Machine(
            device_bytes=device_bytes,
            host_bytes=max(0, room.host_bytes + on_host),
            disk_bytes=free_disk_bytes(config.scratch_folder or default_scratch_folder())
            + self.weights_disk_bytes,
            taken_bytes=taken_bytes,
        )

    def _weights_held(self) -> tuple[int, int]:
        """Bytes of weights on device and host."""
        if self._seam.weights is None and self._seam.layers_are_away:
            layers_bytes = sum(self.shape.layers_bytes)
            return self._weights_bytes - layers_bytes, layers_bytes
        return self.weights_device_bytes, self.weights_host_bytes

    def _asked(self, config: EngineConfig, store: KVStore | None = None) -> Asked:
        kv = config.kv if store is None else store.tier.name
        return Asked(
            chunk_tokens=None if config.chunk_tokens == "auto" else int(config.chunk_tokens),
            kv=None if kv == "auto" else kv,
            hidden=None if config.hidden == "auto" else config.hidden,
            decode=None if config.decode == "auto" else config.decode,
            weights=None if config.weights == "auto" else config.weights,
        )

    @property
    def _recurrent_here(self) -> RecurrentBytes | None:
        # Its simulation takes seconds, and on a CPU decides nothing.
        return self._recurrent if self.device.type == "cuda" else None

    @functools.cached_property
    def _rates(self) -> Rates:
        return rates_for(self.shape, self.dtype, self.device)

    @functools.cached_property
    def _recurrent(self) -> RecurrentBytes | None:
        return recurrent_bytes(self.model.config, self.dtype)

    def _reserved_tokens(self, tokens: int) -> int:
        return min(tokens + _RESERVED_NEW_TOKENS, self.context_window_tokens)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes one token takes in keys and values over all layers."""
        seam = self._seam
        layers = len(seam.layers) - len(seam.recurrent_layers)
        return kv_bytes_per_token(seam.kv_heads, seam.head_dim, layers, self.dtype)

    def _room(self, config: EngineConfig, store: KVStore) -> Room:
        """What may still be taken, also in place of a context's keys and values."""
        is_cuda = self.device.type == "cuda"
        resident_bytes = psutil.Process().memory_info().rss
        host_bytes = host_free_bytes(host_total_bytes(), resident_bytes)
        for cap in (config.host_memory, None if is_cuda else config.device_memory):
            if cap is not None:
                host_bytes = min(host_bytes, cap - own_bytes())
        device_bytes = None
        if is_cuda:
            device_bytes = device_free_bytes(self.device, config.device_memory)
        room = Room(device_bytes=device_bytes, host_bytes=host_bytes)
        return room.without(-store.used_bytes, store.tier.name)

    def _place_weights(self, strategy: Strategy | None = None) -> None:
        """Weights of the layers on the device, or at home to be streamed.

        Args:
            strategy: of the run at hand; None for what suits the shortest one.
        """
        seam = self._seam
        chosen = strategy or self._decide(1).forecast.strategy
        if chosen.weights == "device":
            seam.hold_weights()
        # Where they were once brought they stay as long as they are streamed.
        elif seam.weights is None:
            if chosen.weights_home == "disk":
                self._prepare_files(sum(self.shape.layers_bytes))
            with memory_errors_as_sentences():
                seam.stream_weights(self._tier(chosen.weights_home))

    # Files.

    def _scratch_root(self) -> Path:
        return self._config.scratch_folder or default_scratch_folder()

    def _prepare_files(self, wanted_bytes: int) -> None:
        """Refuses what the disk has no room for; lets pages stay in memory as a cap allows."""
        if not wanted_bytes:
            return
        cap = self._config.host_memory
        self._files.resident_limit_bytes = (
            None if cap is None else int(_RESIDENT_SHARE * max(0, cap - own_bytes()))
        )
        self._files.require(wanted_bytes)


def _weights_bytes(model: PreTrainedModel) -> int:
    """Of parameters and buffers, each storage counted once (tied weights share one)."""
    seen: dict[int, int] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        seen[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
    return sum(seen.values())
