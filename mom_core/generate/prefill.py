"""Layer-streaming prefill: the prompt goes through the model layer by layer, and through each
layer mini-sequence by mini-sequence.

For each layer, for each chunk of C tokens, the decoder layer runs on that chunk with everything
before it already in the layer's KV. So the mini-sequence covers the whole layer (norms,
projections, rotary, attention output, MLP), device memory is the weights, one layer's KV and a
few chunk-sized buffers, and each layer's weights are needed once. In the last layer only keys and
values are needed, but for the last token: there the cache stops the layer once they are stored.

Takes token ids and a `KVStore`; yields `PrefillProgress`; returns the next token's logits.

Source: MOM, arXiv:2504.12526 (mini-sequence, last-token head, KV offload); the layer-major order,
the mini-sequence over the whole layer and the last-layer shortcut are ours.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from mom_core.config import TierName
from mom_core.events import PrefillProgress
from mom_core.generate.work import LayerShape, chunk_flops
from mom_core.kv.state import LayerState
from mom_core.kv.store import KVStore, LayerKV
from mom_core.kv.tiers import Tier, device_tier
from mom_core.kv.transfer import HiddenStates, Lanes, LayerStage, StageBuffer
from mom_core.model.hf_seam import HFSeam, KVStored, LayerCall, segment_cache

# Rotary tables of so many tokens are kept between layers; of longer prompts they are made again
# for each layer, so that nothing but hidden states and KV grows with the prompt.
KEPT_CALL_TOKENS = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillPlan:
    """The settings of one prefill, with every "auto" decided.

    Args:
        chunk_tokens: C.
        hidden_tier: where the hidden states live between layers.
        keep_states_at: positions where recurrent states are kept, to be gone back to; a chunk
            ends at each. The first position and the last are kept in any case.
        stages_kv: whether keys and values that live off the device are held there while their
            layer runs. Where the device is the CPU, files are as near as its memory.
    """

    chunk_tokens: int
    hidden_tier: Tier
    keep_states_at: frozenset[int] = frozenset()
    stages_kv: bool = True


class WorkingBytes:
    """Bytes of a run's working buffers by tier, readable from another thread."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Nothing is held."""
        self.device_bytes = self.host_bytes = self.disk_bytes = 0


class _Prefill:
    """One prefill in progress."""

    def __init__(
        self,
        seam: HFSeam,
        store: KVStore,
        token_ids: list[int],
        reused_tokens: int,
        plan: PrefillPlan,
        shapes: list[LayerShape],
        working: WorkingBytes,
    ) -> None:
        self.seam = seam
        self.store = store
        self.token_ids = torch.tensor([token_ids], dtype=torch.long)
        self.last_id = token_ids[-1]
        self.reused_tokens = reused_tokens
        self.plan = plan
        self.shapes = shapes
        self.working = working
        self.past = store.tokens
        self.total = self.past + len(token_ids)
        self.cache = segment_cache(store.layers)
        self.lanes = Lanes(seam.device)
        self.hidden: HiddenStates | None = None
        self.stage: StageBuffer | None = None
        self._calls: dict[int, list[LayerCall]] = {}
        self._kept_tokens = 0
        # Without recurrent states there is nothing to keep, and no chunk has to end early.
        self._keep_at = plan.keep_states_at | {self.total} if store.states else frozenset()
        store.keep_states()
        self._started = time.perf_counter()
        self._done_flops = 0.0
        self._done_token_layers = 0
        self._total_flops = sum(
            self._flops(layer, start, end)
            for layer in range(len(shapes))
            for start, end in self.chunks()
        )

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Positions `(start, end)` of every chunk, in order."""
        inside = sorted(at for at in self._keep_at if self.past < at < self.total)
        start = self.past
        for stop in [*inside, self.total]:
            while start < stop:
                end = min(start + self.plan.chunk_tokens, stop)
                yield start, end
                start = end

    def run(self) -> Generator[PrefillProgress, None, Tensor]:
        """The whole prefill; see the module."""
        if self.plan.stages_kv and self.store.tier.name != "device":
            self.stage = StageBuffer(device_tier(self.seam.device), self.total, self.lanes)
        last = len(self.shapes) - 1
        for layer in range(last):
            self._stage(layer)
            yield from self._layer(layer)
        self._stage(last)
        logits = yield from self._last_layer(last)
        self.lanes.synchronize()
        return logits

    def _stage(self, layer: int) -> None:
        """Lets the layer's KV be used on the device while its home is the host."""
        home = self.store.layers[layer]
        if self.stage is not None and isinstance(home, LayerKV):
            self.cache.layers[layer].kv = LayerStage(home, self.stage, self.lanes)

    def _layer(self, layer: int) -> Generator[PrefillProgress, None, None]:
        chunks = list(self.chunks())
        for i, (start, end) in enumerate(chunks):
            hidden, call = self._input(layer, start, end)
            if layer > 0 and i + 1 < len(chunks):
                following = chunks[i + 1]
                self._hidden_states(hidden).prefetch(*self._row(*following))
            output = self.seam.run_layer(layer, hidden, call)
            self._advance(layer, end)
            self._hidden_states(output).write(start - self.past, output)
            yield self._progress(layer, start, end, is_layer_done=i + 1 == len(chunks))

    def _last_layer(self, layer: int) -> Generator[PrefillProgress, None, Tensor]:
        """Stores all keys and values; only the last token goes all the way."""
        final: Tensor | None = None
        for start, end in self.chunks():
            hidden, call = self._input(layer, start, end)
            if end == self.total:
                if end - start > 1:
                    # The call was recorded for the whole chunk; its parts get calls of their own.
                    head = self._record(start, end - 1)[1][layer]
                    self._store_only(layer, hidden[:, :-1], head)
                    self._advance(layer, end - 1)
                    call = self._record(end - 1, end)[1][layer]
                final = self.seam.run_layer(layer, hidden[:, -1:], call)
            else:
                self._store_only(layer, hidden, call)
            self._advance(layer, end)
            yield self._progress(layer, start, end, is_layer_done=end == self.total)
        if final is None:
            raise ValueError("a prefill needs at least one token")
        return self.seam.head(final[:, -1:], self.last_id, self.total - 1, self.cache)

    def _advance(self, layer: int, end: int) -> None:
        """Tells a recurrent layer how far it has run, and keeps its state where it should be."""
        state = self.store.layers[layer]
        if isinstance(state, LayerState):
            state.advance(end)
            if end in self._keep_at:
                state.keep()

    def _store_only(self, layer: int, hidden: Tensor, call: LayerCall) -> None:
        """Runs a layer until its keys and values are stored.

        A recurrent layer never gives the signal and simply runs to its end.
        """
        self.cache.layers[layer].stop_once_stored = True
        try:
            self.seam.run_layer(layer, hidden, call)
        except KVStored:
            pass
        finally:
            self.cache.layers[layer].stop_once_stored = False

    def _input(self, layer: int, start: int, end: int) -> tuple[Tensor, LayerCall]:
        """A chunk's hidden states before this layer, and what else the layer is called with."""
        if layer == 0:
            embeddings, calls = self._record(start, end)
            if self._kept_tokens + end - start <= KEPT_CALL_TOKENS:
                self._calls[start] = calls
                self._kept_tokens += end - start
            return embeddings, calls[0]
        kept = self._calls.get(start)
        calls = kept if kept is not None else self._record(start, end)[1]
        if self.hidden is None:
            raise ValueError("the first layer has not run")
        return self.hidden.read(*self._row(start, end)), calls[layer]

    def _record(self, start: int, end: int) -> tuple[Tensor, list[LayerCall]]:
        ids = self.token_ids[:, start - self.past : end - self.past]
        return self.seam.embed(ids, start, self.cache, self.total)

    def _row(self, start: int, end: int) -> tuple[int, int]:
        return start - self.past, end - self.past

    def _hidden_states(self, like: Tensor) -> HiddenStates:
        if self.hidden is None:
            self.hidden = HiddenStates(
                self.plan.hidden_tier,
                self.seam.device,
                self.lanes,
                tokens=self.total - self.past,
                width=like.shape[-1],
                dtype=like.dtype,
            )
        return self.hidden

    def _flops(self, layer: int, start: int, end: int) -> float:
        is_last = layer + 1 == len(self.shapes)
        return chunk_flops(self.shapes[layer], start, end, is_last_layer=is_last)

    def _progress(
        self, layer: int, start: int, end: int, *, is_layer_done: bool
    ) -> PrefillProgress:
        self._count_working_bytes()
        self._done_flops += self._flops(layer, start, end)
        self._done_token_layers += end - start
        elapsed = time.perf_counter() - self._started
        fraction = min(1.0, self._done_flops / self._total_flops)
        return PrefillProgress(
            prompt_tokens=self.total,
            reused_tokens=self.reused_tokens,
            layer=layer + is_layer_done,
            layers=len(self.shapes),
            token_layers_done=self._done_token_layers,
            token_layers_total=(self.total - self.past) * len(self.shapes),
            fraction=fraction,
            elapsed_seconds=elapsed,
            eta_seconds=elapsed * (1 - fraction) / fraction if fraction > 0 else None,
        )

    def _count_working_bytes(self) -> None:
        counted = dict.fromkeys(get_args(TierName), 0)
        if self.stage is not None:
            counted["device"] += self.stage.used_bytes
        if self.hidden is not None:
            counted[self.plan.hidden_tier.name] += self.hidden.used_bytes
        self.working.device_bytes = counted["device"]
        self.working.host_bytes = counted["host"]
        self.working.disk_bytes = counted["disk"]


def prefill(
    seam: HFSeam,
    store: KVStore,
    token_ids: list[int],
    *,
    reused_tokens: int,
    plan: PrefillPlan,
    shapes: list[LayerShape],
    working: WorkingBytes,
) -> Generator[PrefillProgress, None, Tensor]:
    """Reads tokens after those the store holds.

    Args:
        seam: the model.
        store: its keys and values; appended to. On an error or when the generator is closed it
            is cropped back to what it held before.
        token_ids: at least one, following those in the store.
        reused_tokens: only reported: tokens of the prompt that did not have to be read.
        plan: chunk size and tier of the hidden states.
        shapes: of every layer, for the measure of the work.
        working: kept up to date with the bytes of the working buffers, cleared at the end.

    Yields:
        A `PrefillProgress` after every chunk of every layer.

    Returns:
        The next token's logits `[V]`, fp32.
    """
    past = store.tokens
    run = _Prefill(seam, store, token_ids, reused_tokens, plan, shapes, working)
    is_complete = False
    try:
        logits = yield from run.run()
        is_complete = True
        return logits
    finally:
        working.clear()
        if not is_complete:
            run.lanes.synchronize()
            store.roll_back(past)
