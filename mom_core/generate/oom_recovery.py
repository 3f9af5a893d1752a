"""What an answer does when memory is full: it goes on with less, from the token it was at.

Keys and values that were brought to the device stay at home instead, or come layer by layer; those
whose home is full move one tier down. The token that was said last is read again, and the answer
goes on as it would have.

Source: ours.
"""

from __future__ import annotations

import torch

from mom_core.config import DecodeMode
from mom_core.errors import OutOfMemory
from mom_core.events import Adapted
from mom_core.kv.oom import FullMemory, full_memory, give_back_caches, tier_below
from mom_core.kv.store import KVStore
from mom_core.kv.tiers import Tier

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
            store: of the context.
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
