"""The KV store: every layer's keys and values, append-only, in preallocated segments.

Nothing is ever concatenated or moved to grow: room is reserved ahead, tokens are written into
it once, and when it is full another segment begins. Attention takes the filled parts as views.

So a store can be branched without a copy: each continues with segments of its own, and rows that
both see are written by neither. What is saved to a file is such a branch.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from mom_core.attention import Segment
from mom_core.kv.state import LayerState
from mom_core.kv.tiers import Tier

# Room added beyond what is asked for: a chat's short turns then share one segment.
_SPARE_TOKENS = 256
_SPARE_SHARE = 16


@dataclass(slots=True)
class _Buffer:
    """Preallocated room of one segment: `[1, G, capacity, D]` each, `used` tokens filled.

    The first `shared` rows may be seen by others, too, and are never written again.
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
        tier: where the segments live.
    """

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
        self.tokens = 0
        self._buffers: list[_Buffer] = []
        self._wanted_tokens = 0

    def reserve(self, tokens: int) -> None:
        """Makes room for `tokens` tokens in all; memory is taken at the next `append`.

        The shape of a layer's keys is only known from its first tokens, so this is a promise.
        """
        self._wanted_tokens = max(self._wanted_tokens, tokens)

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Copies new tokens to the end.

        Args:
            keys: `[1, G, N, D]`, any device.
            values: `[1, G, N, D]`.
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
        """The filled segments, in order of position, as views `[1, G, K, D]`."""
        for buffer in self._buffers:
            self.tier.touch(buffer.keys, buffer.values)
        return [
            Segment(b.start, b.keys[:, :, : b.used], b.values[:, :, : b.used])
            for b in self._buffers
            if b.used
        ]

    def hold(self, keys: Tensor, values: Tensor) -> None:
        """Takes tokens as they lie, without a copy: the next segment, only to be read.

        Args:
            keys: `[1, G, N, D]`, such as a view of a file; on this tier's device.
            values: `[1, G, N, D]`.
        """
        tokens = int(keys.shape[2])
        self._buffers.append(_Buffer(self.tokens, keys, values, tokens, tokens))
        self.tokens += tokens

    def branch(self) -> LayerKV:
        """The same tokens in the same memory; what one appends or crops, the other never sees."""
        other = LayerKV(self.tier)
        for buffer in self._buffers:
            buffer.shared = max(buffer.shared, buffer.used)
            held = slice(0, buffer.used)
            other.hold(buffer.keys[:, :, held], buffer.values[:, :, held])
        return other

    def moved_to(self, tier: Tier) -> LayerKV:
        """The same keys and values on another tier, with room for more."""
        moved = LayerKV(tier)
        moved.reserve(self.tokens + _SPARE_TOKENS)
        for segment in self.segments():
            moved.append(segment.keys, segment.values)
        return moved

    def take(self, other: LayerKV) -> None:
        """Becomes what the other is, and leaves it empty."""
        self.tier, self.tokens, self._buffers = other.tier, other.tokens, other._buffers
        self._wanted_tokens = other._wanted_tokens
        other.tokens, other._buffers = 0, []

    def crop(self, tokens: int) -> None:
        """Drops everything after the first `tokens` tokens; buffers left empty are freed."""
        self.take_back(tokens)
        self._wanted_tokens = 0

    def take_back(self, tokens: int) -> None:
        """`crop`, and room for as many tokens as before stays promised."""
        for buffer in self._buffers:
            buffer.used = max(0, min(buffer.used, tokens - buffer.start))
        self._buffers = [b for b in self._buffers if b.used]
        self.tokens = min(self.tokens, tokens)

    @property
    def used_bytes(self) -> int:
        """Bytes of the tokens held (not of the room reserved for more)."""
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
    """What all layers hold of one context: keys and values, or a recurrent state.

    Args:
        layers: L.
        tier: where keys and values live once a layer is done.
        recurrent: which layers have a state instead of keys and values.
    """

    def __init__(self, layers: int, tier: Tier, recurrent: Collection[int] = ()) -> None:
        self.tier = tier
        self.layers: list[LayerKV | LayerState] = [
            LayerState() if index in recurrent else LayerKV(tier) for index in range(layers)
        ]

    def branch(self) -> KVStore:
        """All of it once more without a copy of keys and values; each goes its own way."""
        other = KVStore(0, self.tier)
        other.layers = [layer.branch() for layer in self.layers]
        return other

    @property
    def tokens(self) -> int:
        """Tokens that every layer holds."""
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
        """Makes room for `tokens` tokens in all, in every layer."""
        for layer in self.keys_and_values:
            layer.reserve(tokens)

    def move_to(self, tier: Tier) -> None:
        """Moves all keys and values to another tier, layer by layer.

        Raises:
            OutOfMemory: there is no room for them; what was moved is moved back.
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
                # Copies are only queued, and the next to read there may be the CPU.
                _wait_for_copies({before.device, tier.device})

    def advance_states(self, tokens: int) -> None:
        """All layers have run: the states are those after `tokens` tokens."""
        for state in self.states:
            state.advance(tokens)

    def keep_states(self) -> None:
        """Keeps all states as they are now, to go back to."""
        for state in self.states:
            state.keep()

    def thin_states(self, limit: int) -> None:
        """Forgets kept states until `limit` are left: first those nearest to their neighbours."""
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

        Recurrent states can only go back to where one was kept, so more may be dropped.

        Returns:
            How many tokens are left.
        """
        if all(state.tokens == tokens for state in self.states):
            for layer in self.keys_and_values:
                layer.crop(tokens)
            return tokens
        return self.roll_back(tokens)

    def roll_back(self, tokens: int) -> int:
        """`crop` for after a failure: no state is trusted but the kept ones.

        It takes no memory, for there may be none: `settle_states` must come before the next run.

        Returns:
            How many tokens are left.
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
        """Recurrent states are in place, after `roll_back` or not."""
        for state in self.states:
            state.settle()

    @property
    def used_bytes(self) -> int:
        """Bytes of keys, values and states on their tier or device."""
        return sum(layer.used_bytes for layer in self.keys_and_values) + sum(
            state.state_bytes for state in self.states
        )

    @property
    def kept_bytes(self) -> int:
        """Bytes of the kept states, on the host."""
        return sum(state.kept_bytes for state in self.states)


def _wait_for_copies(devices: Collection[torch.device]) -> None:
    for device in devices:
        if device.type == "cuda":
            torch.cuda.current_stream(device).synchronize()


def copy_tokens(into: Tensor, source: Tensor, *, is_queued: bool) -> None:
    """Copies keys or values `[1, G, N, D]` of some tokens.

    To and from pinned memory head by head: the rows of one head lie together, so that each copy
    is one transfer. As a whole they would go through temporary, unpinned buffers, and nothing
    would overlap.

    Args:
        into: views of the places.
        source: the same shape and dtype, any device.
        is_queued: return before it is done, in the order of the current stream; only for host
            memory that is pinned.
    """
    if into.device == source.device or not is_queued:
        into.copy_(source)
        return
    for head in range(into.shape[1]):
        into[0, head].copy_(source[0, head], non_blocking=True)


def kv_bytes_per_token(kv_heads: int, head_dim: int, layers: int, dtype: torch.dtype) -> int:
    """Bytes one token takes in keys and values over all layers (G, D, L)."""
    return 2 * kv_heads * head_dim * layers * dtype.itemsize
