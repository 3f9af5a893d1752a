"""Simulation: the engine's real code, and plain transformers, on tensors without contents.

Under `FakeTensorMode` every operation gives a tensor of the right shape and none of the bytes, so
a prefill of 455,000 tokens through an 8B model runs in seconds on any machine, without weights and
without a GPU. `MemoryTracker`, a dispatch mode, sees each storage come and go and keeps the bytes
by tier (device, host, disk) and kind (weights, KV, hidden, activations, logits), with peaks and a
timeline. On which tier a storage lies is a property the tracker gives it, not `tensor.device`:
fake tensors of a GPU cannot be made without one. `track` does the same with real tensors.

Not counted: what an allocator rounds up or leaves unused, the CUDA context, libraries' own
workspaces. Kernels count as what they return (flash attention: output and log-sum-exp).

Source: ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, get_args
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses import FakeTensor, FakeTensorMode
from transformers import Cache, DynamicCache

from mom_core import partial_attention
from mom_core.config import TierName
from mom_core.forecast.tracker import Kind, MemoryTracker, Moment, Phase
from mom_core.generate.prefill import prefill
from mom_core.generators import draw
from mom_core.held_bytes import WorkingBytes
from mom_core.kv.decode_kv import DecodeKV
from mom_core.kv.store import KVStore
from mom_core.kv.tiers import Tier
from mom_core.kv.transfer import LayerStage
from mom_core.mini_sequence import saving
from mom_core.model import weight_stream
from mom_core.model.seam.cache import StateCacheLayer, segment_cache
from mom_core.model.seam.decoder import HFSeam
from mom_core.model.seam.empty import model_without_weights
from mom_core.model.seam.patches import LayerCall
from mom_core.model.work import layer_shapes
from mom_core.native import without_kernels
from mom_core.strategy import Strategy

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

# Answer tokens after the prompt: the first still sees prefill's leftovers, the second does not.
_DECODE_STEPS = 2


@dataclass(frozen=True, slots=True)
class _TrackedTier(Tier):
    """A tier whose tensors the tracker knows to lie there."""

    tracker: MemoryTracker = field(kw_only=True)
    kind: Kind = field(kw_only=True)

    def empty(self, *shape: int, dtype: torch.dtype) -> Tensor:
        with self.tracker.creating(self.name, self.kind):
            return torch.empty(shape, dtype=dtype, device=self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What a run would hold, step by step.

    Args:
        strategy: how it ran.
        tokens: S, of the prompt.
        timeline: the highest use of every step, in order.
    """

    strategy: Strategy
    tokens: int
    timeline: Sequence[Moment]

    def device_peak(self, *phases: Phase) -> Moment:
        """The moment the device held most; of all phases if none is named."""
        return max(self._of(phases), key=lambda moment: moment.device_bytes)

    def disk_peak(self, *phases: Phase) -> Moment:
        """The moment the disk held most; of all phases if none is named."""
        return max(self._of(phases), key=lambda moment: moment.disk_bytes)

    def host_peak(self, *phases: Phase) -> Moment:
        """The moment the host held most; of all phases if none is named."""
        return max(self._of(phases), key=lambda moment: moment.host_bytes)

    def _of(self, phases: tuple[Phase, ...]) -> Iterator[Moment]:
        return (m for m in self.timeline if not phases or m.phase in phases)


def simulate(
    config: PretrainedConfig, tokens: int, strategy: Strategy, *, dtype: torch.dtype | None = None
) -> Simulation:
    """Reads a prompt and answers two tokens, on fake tensors.

    Args:
        config: that of any model the engine takes.
        tokens: S, at least one.
        strategy: how.
        dtype: for the weights; bf16 if None.

    Raises:
        UnsupportedModel: the engine cannot run such a model.
    """
    with FakeTensorMode(), torch.no_grad():
        model = model_without_weights(config, dtype or torch.bfloat16)
        return _tracked(model, tokens, strategy)


def track(model: PreTrainedModel, tokens: int, strategy: Strategy) -> Simulation:
    """The same with a real model: the bytes its tensors really take.

    Args:
        model: on the CPU.
        tokens: S, of a prompt of token 0.
        strategy: how; its `device_type` must be "cpu".
    """
    with torch.no_grad():
        return _tracked(model, tokens, strategy)


@contextmanager
def _as_if_plain_and_on(device_type: str) -> Iterator[None]:
    """Inside, the kernels of this kind of device are called, and every weight counts as plain.

    Fake tensors of a GPU cannot be made without one. No mock: it would keep its arguments alive.
    """

    def kernels_of(query: Tensor) -> str:
        return device_type

    def is_plain(tensor: Tensor) -> bool:
        return True

    def is_recent_gpu(device: torch.device) -> bool:
        return True

    with (
        mock.patch.object(partial_attention, "kernels_of", kernels_of),
        mock.patch.object(partial_attention, "is_recent_gpu", is_recent_gpu),
        mock.patch.object(weight_stream, "is_plain", is_plain),
    ):
        yield


def _tracked(model: PreTrainedModel, tokens: int, strategy: Strategy) -> Simulation:
    tracker = MemoryTracker()
    run = _TrackedRun(model, tokens, strategy, tracker)
    is_fake = isinstance(model.get_input_embeddings().weight, FakeTensor)
    once = _recurrent_layers_run_once(model, tracker) if is_fake else nullcontext()
    with tracker, once, without_kernels(), _as_if_plain_and_on(strategy.device_type):
        tracker.adopt(model)
        try:
            run.all()
            tracker.step("decode")
        finally:
            # Not counted: the model is put back as it was.
            tracker.step("load")
            run.close()
    return Simulation(
        strategy=strategy,
        tokens=tokens,
        timeline=[m for m in tracker.timeline if m.phase != "load"],
    )


class _TrackedRun:
    """One strategy's prefill and the first steps of its answer."""

    def __init__(
        self, model: PreTrainedModel, tokens: int, strategy: Strategy, tracker: MemoryTracker
    ) -> None:
        self.model = model
        self.tokens = tokens
        self.strategy = strategy
        self.tracker = tracker
        self._seam: _TracedSeam | None = None

    def all(self) -> None:
        if self.strategy.name == "layer-streaming":
            self._engine()
        else:
            self.tracker.step("prefill")
            self._transformers()

    def close(self) -> None:
        """Puts streamed weights back."""
        if self._seam is not None:
            self._seam.stream_weights(None)

    def _tier(self, name: TierName, kind: Kind) -> Tier:
        is_remote = name != "device" and self.strategy.device_type == "cuda"
        return _TrackedTier(
            name,
            torch.device("cpu"),
            is_pinned=is_remote and name == "host",
            is_remote=is_remote,
            tracker=self.tracker,
            kind=kind,
        )

    def _engine(self) -> None:
        seam, strategy = _TracedSeam(self.model, self.tracker), self.strategy
        # Where streamed weights arrive.
        seam.tier = self._tier("device", "weights")
        self._seam = seam
        if strategy.weights == "stream":
            seam.stream_weights(self._tier(strategy.weights_home, "weights"))
        self.tracker.step("prefill")
        store = KVStore(len(seam.layers), self._tier(strategy.kv, "KV"), seam.recurrent_layers)
        store.reserve(self.tokens + self.strategy.reserved_tokens)
        reading = prefill(
            seam,
            store,
            [0] * self.tokens,
            reused_tokens=0,
            strategy=strategy,
            tiers={name: self._tier(name, "hidden") for name in get_args(TierName)},
            shapes=layer_shapes(seam),
            working=WorkingBytes(),
        )
        draw(reading)
        self.tracker.step("decode")
        windows = [seam.window_of_layer(index) for index in range(len(seam.layers))]
        kv = DecodeKV(store, strategy.decode, seam.device, windows, strategy.reserved_tokens)
        self._label_copies(kv)
        cache = segment_cache(kv.layers)
        step = seam.stepper(cache)
        for i in range(_DECODE_STEPS):
            self.tracker.step("decode")
            self.tracker.label(step([0], self.tokens + i), "logits")
            store.advance_states(self.tokens + i + 1)
        kv.close()

    def _label_copies(self, kv: DecodeKV) -> None:
        """What came back to the device for the answer is KV."""
        for layer in kv.layers:
            if isinstance(layer, LayerStage):
                for segment in layer.segments():
                    self.tracker.label(segment.keys, "KV")
                    self.tracker.label(segment.values, "KV")

    def _transformers(self) -> None:
        """Plain transformers, with the paper's parts as the strategy says."""
        strategy, tracker = self.strategy, self.tracker
        ids = torch.zeros(1, self.tokens + _DECODE_STEPS, dtype=torch.long)
        tracker.label(ids, "ids", "host")
        cache: Cache | None = None
        with self._method(), _watched(self.model, tracker):
            chunk = strategy.chunk_tokens if strategy.name == "chunked" else self.tokens
            ends = [*range(chunk, self.tokens, chunk), self.tokens]
            start = 0
            for end in [*ends, *range(self.tokens + 1, self.tokens + _DECODE_STEPS + 1)]:
                if end > self.tokens:
                    tracker.step("decode")
                cache = self._forward(ids[:, start:end], cache)
                start = end

    def _forward(self, ids: Tensor, cache: Cache | None) -> Cache:
        is_plain = self.strategy.name in ("standard", "chunked")
        if cache is None and is_plain:
            cache = DynamicCache(config=self.model.config)
        if is_plain and cache is not None:
            _label_updates(cache, self.tracker)
        # The ids travel to the device.
        output = self.model(
            input_ids=ids.clone(),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=0 if self.strategy.logits == "all" else 1,
        )
        used: Cache = output.past_key_values
        return used

    def _method(self) -> Any:
        strategy = self.strategy
        if strategy.name in ("standard", "chunked"):
            return nullcontext()
        is_split = strategy.name in ("mini-sequence", "mom")
        return saving(
            HFSeam(self.model),
            self._tier(strategy.kv, "KV"),
            chunk_tokens=strategy.chunk_tokens if is_split else self.tokens,
            returns_to=self._tier("device", "KV") if strategy.decode == "device" else None,
        )


def _label_updates(cache: Cache, tracker: MemoryTracker) -> None:
    """What the cache's layers hold after an update is KV."""
    for layer in cache.layers:
        if "update" in vars(layer) or not hasattr(layer, "update"):
            continue

        def update(*args: Any, original: Any = layer.update, **kwargs: Any) -> Any:
            states = original(*args, **kwargs)
            for held in states:
                tracker.label(held, "KV")
            return states

        layer.update = update


@contextmanager
def _watched(model: PreTrainedModel, tracker: MemoryTracker) -> Iterator[None]:
    """Steps of the timeline by layer, and the kinds of what layers and head give."""
    seam_layers = HFSeam(model).layers
    head = model.get_output_embeddings()

    def before(layer: int) -> Any:
        def hook(module: Any, args: Any) -> None:
            tracker.step(tracker.phase, layer)

        return hook

    def hidden(module: Any, args: Any, output: Any) -> None:
        tracker.label(output[0] if isinstance(output, tuple) else output, "hidden")

    def logits(module: Any, args: Any, output: Tensor) -> None:
        tracker.label(output, "logits")

    hooks = [
        model.get_input_embeddings().register_forward_hook(hidden),
        head.register_forward_pre_hook(lambda module, args: tracker.step(tracker.phase)),
        head.register_forward_hook(logits),
    ]
    for index, layer in enumerate(seam_layers):
        hooks += [
            layer.register_forward_pre_hook(before(index)),
            layer.register_forward_hook(hidden),
        ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _TracedSeam(HFSeam):
    """The seam; it shows the tracker where a prefill is and what is KV."""

    def __init__(self, model: PreTrainedModel, tracker: MemoryTracker) -> None:
        super().__init__(model)
        self._tracker = tracker

    def embed(
        self, input_ids: Tensor, start: int, cache: Cache, total_tokens: int
    ) -> tuple[Tensor, list[LayerCall]]:
        self._tracker.label(input_ids, "ids", "host")
        return super().embed(input_ids, start, cache, total_tokens)

    def run_layer(self, index: int, hidden: Tensor, call: LayerCall) -> Tensor:
        self._tracker.step("prefill", index)
        try:
            return super().run_layer(index, hidden, call)
        finally:
            kv = getattr(call.kwargs["past_key_values"].layers[index], "kv", None)
            if isinstance(kv, LayerStage):
                for segment in kv.segments():
                    self._tracker.label(segment.keys, "KV")
                    self._tracker.label(segment.values, "KV")

    def head(self, hidden: Tensor, token_id: int, position: int, cache: Cache) -> Tensor:
        self._tracker.step("prefill")
        logits = super().head(hidden, token_id, position, cache)
        self._tracker.label(logits, "logits")
        return logits


@dataclass(frozen=True, slots=True)
class _LayerRun:
    """What one run of a recurrent layer did to memory, to be counted again.

    Args:
        spike_bytes: the most it held beyond what was there before.
        parts: the state it left, by the cache layer's attribute.
    """

    spike_bytes: int
    parts: dict[str, dict[int, Any]]


@contextmanager
def _recurrent_layers_run_once(model: PreTrainedModel, tracker: MemoryTracker) -> Iterator[None]:
    """Runs each kind of step of recurrent layers once, and counts its bytes where it recurs.

    The reference code of such a layer is a loop over the tokens, slow on fake tensors too. What
    it allocates depends on the length of the chunk and on whether there is a state before it.
    """
    seam = HFSeam(model)
    known: dict[object, _LayerRun] = {}
    layers = [seam.layers[index] for index in sorted(seam.recurrent_layers)]

    def forward(index: int, original: Any, hidden: Tensor, *args: Any, **kw: Any) -> Any:
        state = kw["past_key_values"].layers[index]
        is_last = index + 1 == len(seam.layers)
        key = (hidden.shape[1], bool(state.has_previous_state[0]), is_last, tracker.phase)
        if key in known:
            tracker.spike(known[key].spike_bytes)
            for name, values in known[key].parts.items():
                held = getattr(state, name)
                for i, value in values.items():
                    is_tensor = isinstance(value, Tensor)
                    if not (is_tensor and isinstance(held.get(i), Tensor)):
                        held[i] = torch.empty_like(value) if is_tensor else value
            return torch.empty_like(hidden)
        before = tracker.device_bytes
        output = original(hidden, *args, **kw)
        known[key] = _LayerRun(
            tracker.device_high_bytes - before,
            {name: dict(getattr(state, name)) for name in StateCacheLayer.PARTS},
        )
        return output

    for index in seam.recurrent_layers:
        layer = seam.layers[index]
        layer.forward = partial(forward, index, layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]
