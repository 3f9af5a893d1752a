"""An answer from its first logits to its end, whatever happens to memory on the way.

`decode` runs until the answer ends, memory is full, or the sequence passes a length beyond which
every position is rotated differently. In the last two cases what the context then lacks is read
again, and the answer goes on as it would have.

Source: ours.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor
from transformers import Cache

from mom_core.config import DecodeMode
from mom_core.context import Context
from mom_core.events import Adapted, FinishReason, ReadingEvent, Token
from mom_core.generate.decode import Steps, decode
from mom_core.generate.detokenize import StreamDetokenizer
from mom_core.generate.lookup import PromptLookup
from mom_core.generate.oom_recovery import DecodeRecovery
from mom_core.generate.sampling import Sampler
from mom_core.held_bytes import HeldBytes, WorkingBytes
from mom_core.kv.decode_kv import DecodeKV
from mom_core.kv.oom import FullMemory, full_memory, memory_errors_as_sentences
from mom_core.kv.store import KVStore
from mom_core.kv.tiers import Tier
from mom_core.model.seam.cache import segment_cache
from mom_core.model.seam.decoder import HFSeam

ReadAgain = Callable[[list[int]], Generator[ReadingEvent, None, Tensor]]


@dataclass(slots=True, kw_only=True)
class Answer:
    """One answer.

    Args:
        seam: the model.
        context: holds the prompt.
        max_new_tokens: the longest answer, at least 1.
        sampler: chooses tokens.
        detokenizer: gives the text of the events.
        lookup: offers drafts; None for none.
        eos_ids: tokens that end the answer.
        tiers: from fast to large, where keys and values may go when memory is full.
        decode_mode: how to attend to a store's keys and values that are not on the device.
        read_limit: the tokens the context may hold before all is to be read again; None for no
            limit.
        read_again: reads tokens that the context lacks.
        working: kept up to date with the bytes of the answer's working buffers.

    Attributes:
        new_ids: the tokens so far.
        steps: counts the runs of the model.
    """

    seam: HFSeam
    context: Context
    max_new_tokens: int
    sampler: Sampler
    detokenizer: StreamDetokenizer
    lookup: PromptLookup | None
    eos_ids: frozenset[int]
    tiers: tuple[Tier, ...]
    decode_mode: Callable[[KVStore], DecodeMode]
    read_limit: Callable[[], int | None]
    read_again: ReadAgain
    working: WorkingBytes
    new_ids: list[int] = field(default_factory=list)
    steps: Steps = field(default_factory=Steps)

    def run(self, logits: Tensor) -> Generator[Token | ReadingEvent, None, FinishReason]:
        """Writes the answer.

        Args:
            logits: the first new token's, `[V]`, fp32.

        Yields:
            One `Token` per new token, and what reading again yields.

        Returns:
            Why the answer ended.
        """
        context, prompt_ids = self.context, list(self.context.ids)
        if self.lookup is not None:
            self.lookup.begin(context.ids, self.max_new_tokens)
        recovery = DecodeRecovery(self.seam.device)
        while True:
            reason, adapted = yield from self._part(logits, recovery)
            if adapted is not None:
                yield adapted
            if reason is not None:
                return reason
            held = context.tokens
            missing = [*prompt_ids[held:], *self.new_ids[max(0, held - len(prompt_ids)) :]]
            if missing:
                # A recurrent state may have gone back, or every position is rotated differently.
                logits = yield from self.read_again(missing)

    def _part(
        self, logits: Tensor, recovery: DecodeRecovery
    ) -> Generator[Token, None, tuple[FinishReason | None, Adapted | None]]:
        """Goes on until the answer ends or cannot go on like this.

        Returns:
            Why the answer ended (None if it has not), and what was changed to make room.
        """
        store = self.context.store
        full: FullMemory | None = None
        with memory_errors_as_sentences():
            try:
                with self._cache(recovery) as cache:
                    return (yield from self._tokens(cache, logits)), None
            except BaseException as error:
                full = full_memory(error)
                if full is None:
                    raise
                recovery.failed(error, self.context.tokens)
            # Outside the handler, so that no traceback holds on to tensors.
            return None, recovery.make_room(store, full, self.tiers)

    def _tokens(self, cache: Cache, logits: Tensor) -> Generator[Token, None, FinishReason | None]:
        return (
            yield from decode(
                self.seam,
                self.context.store,
                cache,
                self.context.ids,
                logits,
                new_ids=self.new_ids,
                max_new_tokens=self.max_new_tokens,
                read_limit=self.read_limit(),
                eos_ids=self.eos_ids,
                sampler=self.sampler,
                lookup=self.lookup,
                detokenizer=self.detokenizer,
                steps=self.steps,
            )
        )

    @contextmanager
    def _cache(self, recovery: DecodeRecovery) -> Iterator[Cache]:
        """The context's cache as the answer uses it; copies are freed afterwards."""
        store, seam = self.context.store, self.seam
        mode = recovery.mode_at_most(self.decode_mode(store))
        windows = [seam.window_of_layer(i) for i in range(len(store.layers))]
        new_tokens = self.max_new_tokens - len(self.new_ids)
        kv = DecodeKV(store, mode, seam.device, windows, new_tokens)
        self.working.watch(lambda: HeldBytes({("device", "buffers"): kv.used_bytes}))
        try:
            yield segment_cache(kv.layers)
        finally:
            kv.close()
            self.working.clear()
