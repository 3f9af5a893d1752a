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
from collections.abc import Generator, Iterator, Mapping

import torch
from torch import Tensor

from mom_core.config import TierName
from mom_core.events import PrefillProgress, ReadingEvent
from mom_core.generate.oom_recovery import PrefillRecovery
from mom_core.generate.resume import Checkpoints, PartialReading, Unfinished
from mom_core.held_bytes import HeldBytes, WorkingBytes
from mom_core.kv.oom import FullMemory, full_memory
from mom_core.kv.state import LayerState, Parts
from mom_core.kv.store import KVStore, LayerKV
from mom_core.kv.tiers import Tier, device_tier
from mom_core.kv.transfer import HiddenStates, Lanes, LayerStage, StageBuffer
from mom_core.model.seam.cache import KVStored, segment_cache
from mom_core.model.seam.decoder import HFSeam
from mom_core.model.seam.patches import LayerCall
from mom_core.model.work import LayerShape, chunk_flops
from mom_core.strategy import Strategy

# Rotary tables of so many tokens are kept between layers; of longer prompts they are made again
# for each layer, so that nothing but hidden states and KV grows with the prompt.
KEPT_CALL_TOKENS = 16_384


class _Prefill:
    """One prefill in progress."""

    def __init__(
        self,
        seam: HFSeam,
        store: KVStore,
        token_ids: list[int],
        reused_tokens: int,
        strategy: Strategy,
        tiers: Mapping[TierName, Tier],
        keep_states_at: frozenset[int],
        shapes: list[LayerShape],
        working: WorkingBytes,
        resumed: PartialReading | None,
        checkpoints: Checkpoints | None,
    ) -> None:
        self.seam = seam
        self.store = store
        self.ids = token_ids
        self.token_ids = torch.tensor([token_ids], dtype=torch.long)
        self.last_id = token_ids[-1]
        self.reused_tokens = reused_tokens
        self.shapes = shapes
        working.watch(self._held_bytes)
        self.checkpoints = checkpoints
        self.past = store.tokens if resumed is None else resumed.past
        self.total = self.past + len(token_ids)
        self.layer = 0 if resumed is None else resumed.layer
        # Tokens of that layer that are done: its keys and values are stored, its outputs written.
        self.position = self.past if resumed is None else resumed.position
        self.hidden = None if resumed is None else resumed.hidden
        self.logits = None if resumed is None else resumed.logits
        self.chunk_tokens = strategy.chunk_tokens
        self.hidden_tier = tiers[strategy.hidden] if self.hidden is None else self.hidden.tier
        self.stages_kv = strategy.stages_kv
        self.cache = segment_cache(store.layers)
        self.lanes = Lanes(seam.device)
        self.stage: StageBuffer | None = None
        self._staged: int | None = None
        self.recovery = PrefillRecovery(tuple(tiers.values()))
        self._calls: dict[tuple[int, int], list[LayerCall]] = {}
        self._kept_tokens = 0
        # Without recurrent states there is nothing to keep, and no chunk has to end early.
        self._keep_at = keep_states_at | {self.total} if store.states else frozenset()
        self._stops = [*sorted(p for p in self._keep_at if self.past < p < self.total), self.total]
        if resumed is None:
            store.keep_states()
        self._started = time.perf_counter()
        layers = range(len(shapes))
        work = [[self._flops(i, *chunk) for chunk in self._chunks(self.past)] for i in layers]
        self._total_flops = sum(sum(layer) for layer in work)
        self._done_flops = sum(sum(layer) for layer in work[: self.layer]) + sum(
            self._flops(self.layer, *chunk)
            for chunk in self._chunks(self.past)
            if chunk[1] <= self.position
        )
        self._resumed_fraction = self._done_flops / self._total_flops
        self._done_token_layers = self.layer * len(token_ids) + self.position - self.past

    def _chunks(self, start: int) -> Iterator[tuple[int, int]]:
        """Positions `(start, end)` of the chunks from a position on, in order."""
        while start < self.total:
            stop = next(stop for stop in self._stops if stop > start)
            end = min(start + self.chunk_tokens, stop)
            yield start, end
            start = end

    def run(self) -> Generator[ReadingEvent, None, Tensor]:
        """The whole prefill; see the module."""
        while True:
            yield from self._layer()
            if self.layer + 1 == len(self.shapes):
                break
            self.layer, self.position = self.layer + 1, self.past
            if self.checkpoints is not None:
                self.checkpoints.layer_done(self)
        if self.logits is None:
            raise ValueError("a prefill needs at least one token")
        self.lanes.synchronize()
        return self.logits

    def wait_for_copies(self) -> None:
        """Nothing is under way between tiers any more."""
        self.lanes.synchronize()

    def partial(self) -> PartialReading | None:
        """What was done so far, if it can be resumed; the running layer ends at `position`."""
        if self.hidden is None or (self.layer == 0 and self.position == self.past):
            return None
        self.hidden.forget_coming()
        return PartialReading(
            self.ids, self.past, self.layer, self.position, self.hidden, self.logits
        )

    def _layer(self) -> Generator[ReadingEvent, None, None]:
        """Runs the rest of the current layer; makes room on the way when memory is full."""
        layer = self.layer
        is_last = layer + 1 == len(self.shapes)
        while self.position < self.total:
            start, end = next(self._chunks(self.position))
            full: FullMemory | None = None
            state = self.store.layers[layer]
            before: Parts | None = None
            try:
                if isinstance(state, LayerState):
                    before = state.now()
                self._stage(layer)
                if is_last:
                    self.logits = self._last_chunk(layer, start, end)
                else:
                    self._chunk(layer, start, end)
            except BaseException as error:
                self._undo(layer, start, before)
                full = full_memory(error)
                if full is None or not self.recovery.can_go_on(self, full):
                    raise
            if full is not None:
                # Outside the handler, so that no traceback holds on to tensors.
                self._forget_calls_and_stage()
                if (adapted := self.recovery.make_room(self, full)) is not None:
                    yield adapted
                continue
            self.position = end
            self.recovery.chunk_done()
            yield self._progress(layer, start, end, is_layer_done=end == self.total)

    def _stage(self, layer: int) -> None:
        """Lets the layer's KV be used on the device while its home is the host."""
        home = self.store.layers[layer]
        if self._staged == layer or not isinstance(home, LayerKV):
            return
        if self.store.tier.name == "device" or not self.stages_kv:
            self.cache.layers[layer].kv = home
        else:
            if self.stage is None:
                self.stage = StageBuffer(device_tier(self.seam.device), self.total, self.lanes)
            self.cache.layers[layer].kv = LayerStage(home, self.stage, self.lanes)
        self._staged = layer

    def _chunk(self, layer: int, start: int, end: int) -> None:
        hidden, call = self._input(layer, start, end)
        if layer > 0 and end < self.total:
            self._hidden_states(hidden).prefetch(*self._row(*next(self._chunks(end))))
        output = self.seam.run_layer(layer, hidden, call)
        # What may find no memory comes first: once rows are written, the chunk cannot run again.
        states = self._hidden_states(output)
        self._advance(layer, end)
        states.write(start - self.past, output)

    def _last_chunk(self, layer: int, start: int, end: int) -> Tensor | None:
        """Stores all keys and values; only the prompt's last token goes all the way."""
        hidden, call = self._input(layer, start, end)
        if end < self.total:
            self._store_only(layer, hidden, call)
            self._advance(layer, end)
            return None
        if end - start > 1:
            # The call was recorded for the whole chunk; its parts get calls of their own.
            head = self._record(start, end - 1)[1][layer]
            self._store_only(layer, hidden[:, :-1], head)
            self._advance(layer, end - 1)
            call = self._record(end - 1, end)[1][layer]
        final = self.seam.run_layer(layer, hidden[:, -1:], call)
        self._advance(layer, end)
        return self.seam.head(final[:, -1:], self.last_id, self.total - 1, self.cache)

    # When memory is full.

    def _undo(self, layer: int, start: int, before: Parts | None) -> None:
        """Puts the layer back as it was before the chunk that begins at `start`."""
        self.lanes.synchronize()
        home = self.store.layers[layer]
        if isinstance(home, LayerKV):
            home.take_back(start)
        elif before is not None:
            home.put_back(before, start)
        if self.hidden is not None:
            self.hidden.forget_coming()

    def _forget_calls_and_stage(self) -> None:
        """Frees what can be made again."""
        self._calls.clear()
        self._kept_tokens = 0
        self.stage, self._staged = None, None

    # Parts of a chunk.

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
        embeddings: Tensor | None = None
        calls = self._calls.get((start, end)) if layer > 0 else None
        if calls is None:
            embeddings, calls = self._record(start, end)
            if self._kept_tokens + end - start <= KEPT_CALL_TOKENS:
                self._calls[start, end] = calls
                self._kept_tokens += end - start
        if layer == 0 and embeddings is not None:
            return embeddings, calls[0]
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
                self.hidden_tier,
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
        self._done_flops += self._flops(layer, start, end)
        self._done_token_layers += end - start
        elapsed = time.perf_counter() - self._started
        fraction = min(1.0, self._done_flops / self._total_flops)
        new = fraction - self._resumed_fraction
        return PrefillProgress(
            prompt_tokens=self.total,
            reused_tokens=self.reused_tokens,
            layer=layer + is_layer_done,
            layers=len(self.shapes),
            token_layers_done=self._done_token_layers,
            token_layers_total=(self.total - self.past) * len(self.shapes),
            fraction=fraction,
            elapsed_seconds=elapsed,
            eta_seconds=elapsed * (1 - fraction) / new if new > 0 else None,
            resumed_fraction=self._resumed_fraction,
        )

    def _held_bytes(self) -> HeldBytes:
        held, stage, hidden = HeldBytes(), self.stage, self.hidden
        if stage is not None:
            held["device", "buffers"] = stage.used_bytes
        if hidden is not None:
            held[hidden.tier.name, "hidden"] = hidden.used_bytes
        return held


def prefill(
    seam: HFSeam,
    store: KVStore,
    token_ids: list[int],
    *,
    reused_tokens: int,
    strategy: Strategy,
    tiers: Mapping[TierName, Tier],
    shapes: list[LayerShape],
    working: WorkingBytes,
    keep_states_at: frozenset[int] = frozenset(),
    unfinished: Unfinished | None = None,
    checkpoints: Checkpoints | None = None,
) -> Generator[ReadingEvent, None, Tensor]:
    """Reads tokens after those the store holds.

    Args:
        seam: the model.
        store: its keys and values; appended to. On an error it is cropped back to what it held
            before.
        token_ids: at least one, following those in the store.
        reused_tokens: only reported: tokens of the prompt that did not have to be read.
        strategy: the settings, with every "auto" decided; keys and values live on the store's
            tier.
        tiers: by name, from fast to large: where hidden states live, and where keys, values and
            hidden states may go when memory is full.
        shapes: one per layer, to measure the work.
        working: kept up to date with the bytes of the working buffers, and cleared at the end.
        keep_states_at: positions where recurrent states are kept, to go back to; a chunk ends at
            each. The first and the last position are always kept.
        unfinished: may hold an interrupted reading of these same tokens, which is resumed; takes
            this reading when the generator is closed. Without one, the store is then cropped.
        checkpoints: keeps the reading on disk; None keeps it nowhere.

    Yields:
        A `PrefillProgress` after every chunk of every layer, an `Adapted` where memory was full.

    Returns:
        The next token's logits `[V]`, fp32.

    Raises:
        OutOfMemory: there is no room, however little is taken.
    """
    resumed = None if unfinished is None else unfinished.reading
    past = store.tokens if resumed is None else resumed.past
    run: _Prefill | None = None
    is_complete = False
    try:
        run = _Prefill(
            seam,
            store,
            token_ids,
            reused_tokens,
            strategy,
            tiers,
            keep_states_at,
            shapes,
            working,
            resumed,
            checkpoints,
        )
        if unfinished is not None:
            unfinished.reading = None
        logits = yield from run.run()
        is_complete = True
        return logits
    except (GeneratorExit, KeyboardInterrupt):
        if run is not None and unfinished is not None:
            run.lanes.synchronize()
            unfinished.reading = run.partial()
            if checkpoints is not None and unfinished.reading is not None:
                checkpoints.interrupted(run)
        raise
    finally:
        working.clear()
        if not is_complete and (unfinished is None or unfinished.reading is None):
            if run is not None:
                run.lanes.synchronize()
            store.roll_back(past)
