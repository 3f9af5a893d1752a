"""What a run does when memory is full: it goes on with less, from where it was.

While reading, `PrefillRecovery` first frees caches, then halves the chunk, then moves hidden
states or keys and values one tier down. While answering, `DecodeRecovery` leaves keys and values
at home instead of bringing them to the device, or moves those whose home is full one tier down;
the last token is then read again. The result is the same.

Source: ours.
"""

from __future__ import annotations

from typing import Protocol

import torch

from mom_core.config import DecodeMode
from mom_core.errors import OutOfMemory
from mom_core.events import Adapted, AdaptedWhat
from mom_core.kv.oom import FullMemory, full_memory, give_back_caches, tier_below
from mom_core.kv.store import KVStore
from mom_core.kv.tiers import Tier
from mom_core.kv.transfer import HiddenStates
from mom_core.model.seam.decoder import HFSeam

# Chunks become no smaller than this before a lower tier is used: the device is then still busy.
_SMALL_CHUNK_TOKENS = 512


class RunningPrefill(Protocol):
    """What `PrefillRecovery` sees of a prefill, and changes of it.

    Attributes:
        seam: the model.
        store: keys and values.
        total: tokens in the store at the end.
        layer: the running layer, 0..L-1.
        position: tokens that this layer has done.
        chunk_tokens: C.
        hidden: hidden states between layers; None before the first chunk.
        hidden_tier: where they live.
    """

    seam: HFSeam
    store: KVStore
    total: int
    layer: int
    position: int
    chunk_tokens: int
    hidden: HiddenStates | None
    hidden_tier: Tier


class PrefillRecovery:
    """Makes room for one prefill, as often as it must.

    Args:
        tiers: from fast to large.
    """

    def __init__(self, tiers: tuple[Tier, ...]) -> None:
        self._tiers = tiers
        self._has_given_back = False

    def chunk_done(self) -> None:
        """A chunk found room: the next shortage begins with freeing caches again."""
        self._has_given_back = False

    def can_go_on(self, run: RunningPrefill, full: FullMemory) -> bool:
        """Whether anything is left to try."""
        return (
            not self._has_given_back
            or run.chunk_tokens > 1
            or self._below(run, run.store.tier, full) is not None
            or self._below(run, run.hidden_tier, full) is not None
        )

    def make_room(self, run: RunningPrefill, full: FullMemory) -> Adapted | None:
        """Frees caches; then takes smaller chunks, then a lower tier, then the smallest chunks.

        Args:
            run: the prefill; changed.
            full: the memory that is full.

        Returns:
            What was changed; None if only caches were freed.

        Raises:
            OutOfMemory: nothing is left to try.
        """
        give_back_caches()
        if not self._has_given_back:
            self._has_given_back = True
            return None
        if run.chunk_tokens > _SMALL_CHUNK_TOKENS:
            return _halve_chunk(run, full)
        for what, tier in (("hidden", run.hidden_tier), ("kv", run.store.tier)):
            below = self._below(run, tier, full)
            if below is None:
                continue
            try:
                if what == "kv":
                    run.store.move_to(below)
                else:
                    run.hidden = run.hidden and run.hidden.moved_to(below)
                    run.hidden_tier = below
            except (MemoryError, RuntimeError, OutOfMemory) as error:
                if not isinstance(error, OutOfMemory) and full_memory(error) is None:
                    raise
                continue
            return _adapted(run, "kv" if what == "kv" else "hidden", tier.name, below.name, full)
        return _halve_chunk(run, full)

    def _below(self, run: RunningPrefill, tier: Tier, full: FullMemory) -> Tier | None:
        return tier_below(tier, self._tiers, full, run.seam.device)


def _halve_chunk(run: RunningPrefill, full: FullMemory) -> Adapted:
    before = run.chunk_tokens
    if before == 1:
        raise OutOfMemory(
            f"The {full}'s memory is full, and so is what could take its place. Leave out "
            "documents, close other programs, or choose a smaller model."
        )
    # A chunk longer than what is left would not become shorter.
    run.chunk_tokens = max(1, min(before, run.total - run.position) // 2)
    return _adapted(run, "chunk_tokens", before, run.chunk_tokens, full)


def _adapted(
    run: RunningPrefill,
    what: AdaptedWhat,
    before: int | str,
    after: int | str,
    full: FullMemory,
) -> Adapted:
    return Adapted(
        what=what,
        before=before,
        after=after,
        full=full,
        phase="prefill",
        at_layer=run.layer,
        at_token=run.position,
    )


# From much memory on the device to none.
_WAYS: tuple[DecodeMode, ...] = ("device", "stream", "host")


class DecodeRecovery:
    """Makes room for one answer, as often as it must.

    Args:
        device: where the model computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._mode: DecodeMode = "device"
        self._limit: DecodeMode = "device"
        self._failed_at: int | None = None
        self._has_given_back = False
        self._error: BaseException | None = None

    def mode_at_most(self, mode: DecodeMode) -> DecodeMode:
        """The way that was chosen, or one that takes less if memory has been full."""
        self._mode = max(mode, self._limit, key=_WAYS.index) if mode != "auto" else mode
        return self._mode

    def failed(self, error: BaseException, tokens: int) -> None:
        """Notes an error, and how many tokens the context held."""
        if tokens != self._failed_at:
            self._failed_at, self._has_given_back = tokens, False
        # Without its traceback, which holds on to tensors.
        self._error = error.with_traceback(None)

    def make_room(
        self, store: KVStore, full: FullMemory, tiers: tuple[Tier, ...]
    ) -> Adapted | None:
        """Frees caches; at the same place again, takes the next way, or moves keys and values.

        Args:
            store: the context's.
            full: the memory.
            tiers: from fast to large.

        Returns:
            What was changed, None if that was only caches.

        Raises:
            BaseException: the error itself, if nothing is left to be tried.
        """
        give_back_caches()
        if not self._has_given_back:
            self._has_given_back = True
            return None
        assert self._error is not None
        is_home_away = store.tier.name != "device"
        if is_home_away and self._mode != "host" and self._is_copied_to(full):
            before, self._limit = self._mode, _WAYS[_WAYS.index(self._mode) + 1]
            return self._adapted("decode", before, self._limit, full, store)
        below = tier_below(store.tier, tiers, full, self._device)
        if below is None:
            raise self._error
        name = store.tier.name
        try:
            store.move_to(below)
        except (MemoryError, RuntimeError, OutOfMemory) as error:
            if isinstance(error, OutOfMemory) or full_memory(error) is not None:
                raise self._error from error
            raise
        return self._adapted("kv", name, below.name, full, store)

    def _is_copied_to(self, full: FullMemory) -> bool:
        return full == "device" or self._device.type == "cpu"

    def _adapted(
        self, what: str, before: str, after: str, full: FullMemory, store: KVStore
    ) -> Adapted:
        return Adapted(
            what="decode" if what == "decode" else "kv",
            before=before,
            after=after,
            full=full,
            phase="decode",
            at_layer=None,
            at_token=store.tokens,
        )
