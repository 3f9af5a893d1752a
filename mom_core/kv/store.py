"""The KV store: every layer's keys and values, append-only, in preallocated segments.

To grow, nothing is concatenated or moved. Room is reserved ahead, tokens are written into it once,
and when it is full another segment begins. Attention reads views of the filled parts.

A store can therefore be branched without a copy: both branches continue in segments of their own,
and neither writes to rows that both can see. Snapshots are written from such a branch.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from mom_core.attention import Segment
from mom_core.kv.state import LayerState
from mom_core.kv.tiers import Tier

# Extra room beyond what is needed, so that a chat's short turns share one segment.
_SPARE_TOKENS = 256
_SPARE_SHARE = 16


@dataclass(slots=True)
class _Buffer:
    """Preallocated room of one segment: keys and values, `[1, G, capacity, D]` each.

    Args:
        start: position of the first token.
        keys: keys of the segment.
        values: values of the segment.
        used: number of tokens filled.
        shared: number of tokens, from the first, that a branch may see; never written again.
    """

    start: int
    keys: Tensor
    values: Tensor
    used: int = 0
    shared: int = 0

    @property
    def room(self) -> int:
        return 0 if self.used < self.shared else int(self.keys.shape[2]) - self.used


class LayerKV:
    """Keys and values of one layer on one tier.

    Args:
        tier: the tier of all segments.
    """

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
        self.tokens = 0
        self._buffers: list[_Buffer] = []
        self._wanted_tokens = 0

    def reserve(self, tokens: int) -> None:
        """Plans room for `tokens` tokens in all. The next `append` allocates it.

        Allocation has to wait, because only a layer's first tokens show the shape of its keys.
        """
        self._wanted_tokens = max(self._wanted_tokens, tokens)

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Appends a copy of new tokens.

        Args:
            keys: keys of N tokens, `[1, G, N, D]`, on any device.
            values: their values, `[1, G, N, D]`.
        """
        done, new_tokens = 0, keys.shape[2]
        while done < new_tokens:
            buffer = self._buffer_with_room(keys, values, new_tokens - done)
            take = min(buffer.room, new_tokens - done)
            place, part = slice(buffer.used, buffer.used + take), slice(done, done + take)
            is_queued = self.tier.is_pinned
            copy_tokens(buffer.keys[:, :, place], keys[:, :, part], is_queued=is_queued)
            copy_tokens(buffer.values[:, :, place], values[:, :, part], is_queued=is_queued)
            self.tier.touch(buffer.keys, buffer.values)
            buffer.used += take
            done += take
            self.tokens += take

    def segments(self) -> list[Segment]:
        """Views `[1, G, K, D]` of the filled segments, in order of position."""
        for buffer in self._buffers:
            self.tier.touch(buffer.keys, buffer.values)
        return [
            Segment(b.start, b.keys[:, :, : b.used], b.values[:, :, : b.used])
            for b in self._buffers
            if b.used
        ]

    def hold(self, keys: Tensor, values: Tensor) -> None:
        """Adopts tokens without a copy, as the next segment, which is read-only.

        Args:
            keys: keys `[1, G, N, D]` on this tier's device, for example a view of a file.
            values: values `[1, G, N, D]`.
        """
        tokens = int(keys.shape[2])
        self._buffers.append(_Buffer(self.tokens, keys, values, tokens, tokens))
        self.tokens += tokens

    def branch(self) -> LayerKV:
        """A layer with the same tokens in the same memory; later changes to either stay its own."""
        other = LayerKV(self.tier)
        for buffer in self._buffers:
            buffer.shared = max(buffer.shared, buffer.used)
            held = slice(0, buffer.used)
            other.hold(buffer.keys[:, :, held], buffer.values[:, :, held])
        return other

    def moved_to(self, tier: Tier) -> LayerKV:
        """A copy on another tier, with room for more tokens."""
        moved = LayerKV(tier)
        moved.reserve(self.tokens + _SPARE_TOKENS)
        for segment in self.segments():
            moved.append(segment.keys, segment.values)
        return moved

    def take(self, other: LayerKV) -> None:
        """Takes over another layer's contents, and leaves that layer empty."""
        self.tier, self.tokens, self._buffers = other.tier, other.tokens, other._buffers
        self._wanted_tokens = other._wanted_tokens
        other.tokens, other._buffers = 0, []

    def crop(self, tokens: int) -> None:
        """Drops everything after the first `tokens` tokens, and frees empty segments."""
        self.take_back(tokens)
        self._wanted_tokens = 0

    def take_back(self, tokens: int) -> None:
        """Like `crop`, but the room that `reserve` planned stays planned."""
        for buffer in self._buffers:
            buffer.used = max(0, min(buffer.used, tokens - buffer.start))
        self._buffers = [b for b in self._buffers if b.used]
        self.tokens = min(self.tokens, tokens)

    @property
    def used_bytes(self) -> int:
        """Bytes of the tokens held, without the room reserved for more."""
        return sum(
            (b.keys[:, :, 0].numel() + b.values[:, :, 0].numel()) * b.used * b.keys.element_size()
            for b in self._buffers
        )

    def _buffer_with_room(self, keys: Tensor, values: Tensor, new_tokens: int) -> _Buffer:
        if self._buffers and self._buffers[-1].room:
            return self._buffers[-1]
        missing = max(self._wanted_tokens - self.tokens, new_tokens)
        if self.tokens + new_tokens > self._wanted_tokens:
            missing += max(_SPARE_TOKENS, self.tokens // _SPARE_SHARE)
        _, kv_heads, _, head_dim = keys.shape
        row_bytes = kv_heads * max(head_dim, values.shape[3]) * keys.element_size()
        capacity = self.tier.piece_tokens(missing, row_bytes)
        self._buffers.append(
            _Buffer(
                self.tokens,
                self.tier.empty(1, kv_heads, capacity, head_dim, dtype=keys.dtype),
                self.tier.empty(1, kv_heads, capacity, values.shape[3], dtype=values.dtype),
            )
        )
        return self._buffers[-1]


class KVStore:
    """What all layers hold for one context: keys and values, or a recurrent state.

    Args:
        layers: number of layers, L.
        tier: where keys and values live once a layer is done.
        recurrent: indices of the layers with a state instead of keys and values.
    """

    def __init__(self, layers: int, tier: Tier, recurrent: Collection[int] = ()) -> None:
        self.tier = tier
        self.layers: list[LayerKV | LayerState] = [
            LayerState() if index in recurrent else LayerKV(tier) for index in range(layers)
        ]

    def branch(self) -> KVStore:
        """An independent store with the same contents, without copying keys and values."""
        other = KVStore(0, self.tier)
        other.layers = [layer.branch() for layer in self.layers]
        return other

    @property
    def tokens(self) -> int:
        """Number of tokens that every layer holds."""
        return min(layer.tokens for layer in self.layers)

    @property
    def states(self) -> list[LayerState]:
        """The layers with a recurrent state."""
        return [layer for layer in self.layers if isinstance(layer, LayerState)]

    @property
    def keys_and_values(self) -> list[LayerKV]:
        """The layers with keys and values."""
        return [layer for layer in self.layers if isinstance(layer, LayerKV)]

    def reserve(self, tokens: int) -> None:
        """Plans room for `tokens` tokens in all, in every layer."""
        for layer in self.keys_and_values:
            layer.reserve(tokens)

    def move_to(self, tier: Tier) -> None:
        """Moves all keys and values to another tier, layer by layer.

        Raises:
            OutOfMemory: the tier has no room; layers already moved are moved back.
        """
        before, moved = self.tier, list[LayerKV]()
        try:
            for layer in self.keys_and_values:
                layer.take(layer.moved_to(tier))
                moved.append(layer)
        except BaseException:
            for layer in moved:
                layer.take(layer.moved_to(before))
            raise
        else:
            self.tier = tier
        finally:
            if self.tier.is_pinned:
                # Copies are only queued so far, and the CPU may be the next to read them.
                _wait_for_copies({before.device, tier.device})

    def advance_states(self, tokens: int) -> None:
        """Records that all layers have run, and have now seen `tokens` tokens in all."""
        for state in self.states:
            state.advance(tokens)

    def keep_states(self) -> None:
        """Keeps copies of all current states to go back to."""
        for state in self.states:
            state.keep()

    def thin_states(self, limit: int) -> None:
        """Drops kept copies until `limit` are left, those closest to their neighbours first."""
        if not self.states:
            return
        kept = sorted(frozenset.intersection(*(state.kept_at for state in self.states)))
        while len(kept) > limit:
            gaps = [kept[i + 1] - kept[i - 1] for i in range(1, len(kept) - 1)]
            forgotten = kept.pop(1 + gaps.index(min(gaps)))
            for state in self.states:
                state.forget(forgotten)

    def crop(self, tokens: int) -> int:
        """Drops, in every layer, everything after the first `tokens` tokens.

        Recurrent states can only go back to a kept copy, so more tokens may be dropped.

        Returns:
            The number of tokens left.
        """
        if all(state.tokens == tokens for state in self.states):
            for layer in self.keys_and_values:
                layer.crop(tokens)
            return tokens
        return self.roll_back(tokens)

    def roll_back(self, tokens: int) -> int:
        """`crop` for use after a failure: current states are not trusted, only kept copies.

        It allocates nothing, because memory may be full. Call `settle_states` before the next run.

        Returns:
            The number of tokens left.
        """
        kept = [state.kept_at for state in self.states]
        left = (
            max((at for at in frozenset.intersection(*kept) if at <= tokens), default=0)
            if kept
            else tokens
        )
        for layer in self.layers:
            if isinstance(layer, LayerState):
                layer.give_up(left)
            else:
                layer.crop(left)
        return left

    def settle_states(self) -> None:
        """Restores recurrent states that `roll_back` left to restore."""
        for state in self.states:
            state.settle()

    @property
    def used_bytes(self) -> int:
        """Bytes of keys and values on their tier, and of states on the device."""
        return sum(layer.used_bytes for layer in self.keys_and_values) + sum(
            state.state_bytes for state in self.states
        )

    @property
    def kept_bytes(self) -> int:
        """Bytes of kept copies of states, on the host."""
        return sum(state.kept_bytes for state in self.states)


def _wait_for_copies(devices: Collection[torch.device]) -> None:
    for device in devices:
        if device.type == "cuda":
            torch.cuda.current_stream(device).synchronize()


def copy_tokens(into: Tensor, source: Tensor, *, is_queued: bool) -> None:
    """Copies keys or values `[1, G, N, D]` of some tokens.

    To and from pinned memory, it copies head by head. The rows of one head are contiguous, so each
    copy is one transfer. A single copy of all heads would go through temporary unpinned buffers,
    and could not overlap with computation.

    Args:
        into: view to copy to.
        source: tensor of the same shape and dtype, on any device.
        is_queued: whether to queue the copy on the current stream and return at once; only for
            pinned host memory.
    """
    if into.device == source.device or not is_queued:
        into.copy_(source)
        return
    for head in range(into.shape[1]):
        into[0, head].copy_(source[0, head], non_blocking=True)


def kv_bytes_per_token(kv_heads: int, head_dim: int, layers: int, dtype: torch.dtype) -> int:
    """Bytes of one token's keys and values in all layers.

    Args:
        kv_heads: key-value heads, G.
        head_dim: numbers per head, D.
        layers: number of layers, L.
        dtype: dtype of keys and values.
    """
    return 2 * kv_heads * head_dim * layers * dtype.itemsize
