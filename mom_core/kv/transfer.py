"""Moving keys, values and hidden states between device and host beside the computation.

On CUDA each direction has a stream of its own, so both overlap with the computation and with
each other; events keep the order where one depends on the other. Without CUDA a copy is simply
made. `LayerStage` holds the one layer whose KV must be on the device during prefill;
`HiddenStates` holds `[1, S, E]` between layers.

Source: MOM, arXiv:2504.12526 (KV offload in prefill); the staging of single layers and the
streaming of hidden states are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from mom_core.attention import Segment
from mom_core.kv.store import LayerKV, copy_tokens
from mom_core.kv.tiers import Tier

# Rows of hidden states copied at a time where all of them move.
_FILLED_ROWS = 4096


class KVSink(Protocol):
    """What attention needs of a layer's KV: a place to append, and segments to attend to."""

    @property
    def tokens(self) -> int:
        """The number of tokens held."""

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Adds keys and values `[1, G, N, D]` of new tokens."""

    def segments(self) -> list[Segment]:
        """All that is held, in order of position."""


@runtime_checkable
class CroppableKV(Protocol):
    """Keys and values whose last tokens can be taken back."""

    def crop(self, tokens: int) -> None:
        """Drops everything after the first `tokens` tokens."""


class Lane:
    """One direction of copying. On CUDA a stream; elsewhere the copies happen in place."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def after_compute(self) -> None:
        """What is copied from now on waits for all computation queued so far."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))

    def after_lane(self, other: Lane) -> None:
        """What is copied from now on waits for all that the other lane has queued so far."""
        if self._stream is not None and other._stream is not None:
            self._stream.wait_stream(other._stream)

    def mark(self) -> torch.cuda.Event | None:
        """A point in the lane that computation or another lane can wait for."""
        return None if self._stream is None else self._stream.record_event()

    def after_event(self, event: torch.cuda.Event | None) -> None:
        """What is copied from now on waits for the event."""
        if self._stream is not None and event is not None:
            self._stream.wait_event(event)

    def compute_after(self, event: torch.cuda.Event | None) -> None:
        """Computation queued from now on waits for the event."""
        if event is not None:
            torch.cuda.current_stream(self._device).wait_event(event)

    def using(self) -> AbstractContextManager[object]:
        """Work inside is queued on this lane."""
        if self._stream is None:
            return nullcontext()
        # torch leaves `stream` untyped.
        return torch.cuda.stream(self._stream)  # type: ignore[no-any-return, unused-ignore]

    def keep_until_copied(self, tensor: Tensor) -> None:
        """Tells the allocator that this lane still reads the tensor."""
        if self._stream is not None and tensor.is_cuda:
            tensor.record_stream(self._stream)

    def synchronize(self) -> None:
        """Waits until everything queued has been copied."""
        if self._stream is not None:
            self._stream.synchronize()


class Lanes:
    """The two directions: `down` to the host, `up` to the device."""

    def __init__(self, device: torch.device) -> None:
        self.down = Lane(device)
        self.up = Lane(device)

    def synchronize(self) -> None:
        """Waits until both directions are idle."""
        self.down.synchronize()
        self.up.synchronize()


class StageBuffer:
    """Device room for one layer's KV, used by layer after layer."""

    def __init__(self, tier: Tier, capacity_tokens: int, lanes: Lanes) -> None:
        self._tier = tier
        self._capacity_tokens = capacity_tokens
        self._lanes = lanes
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def room_like(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Buffers `[1, G, capacity, D]` for keys and values of this shape and dtype."""
        self.keys = self._like(keys, self.keys)
        self.values = self._like(values, self.values)
        return self.keys, self.values

    def _like(self, new: Tensor, before: Tensor | None) -> Tensor:
        if before is not None:
            if before.shape[1::2] == new.shape[1::2]:
                return before
            # Copies from and to it may still be queued.
            self._lanes.down.keep_until_copied(before)
            self._lanes.up.keep_until_copied(before)
        shape = (1, new.shape[1], self._capacity_tokens, new.shape[3])
        return self._tier.empty(*shape, dtype=new.dtype)

    @property
    def used_bytes(self) -> int:
        """Bytes taken on the device."""
        return sum(t.numel() * t.element_size() for t in (self.keys, self.values) if t is not None)


class LayerStage:
    """One layer's KV on the device, while its home is the host or the disk.

    What home already holds is fetched when the stage is made (so it can be made a layer
    early); what is appended is used on the device and copied home at once.

    Args:
        home: the layer's keys and values on their tier; nothing else may append to them.
        buffer: the room on the device.
        lanes: the copying directions.
        last_tokens: fetch only so many, for a layer whose window sees no more; None fetches all.
    """

    def __init__(
        self, home: LayerKV, buffer: StageBuffer, lanes: Lanes, last_tokens: int | None = None
    ) -> None:
        self._home = home
        self._buffer = buffer
        self._lanes = lanes
        self._first = 0 if last_tokens is None else max(0, home.tokens - last_tokens)
        self._fetched: torch.cuda.Event | None = None
        self._fetch()

    @property
    def tokens(self) -> int:
        """Tokens of the layer, those that were not fetched included."""
        return self._home.tokens

    def _fetch(self) -> None:
        segments = [
            segment.slice(self._first, segment.end)
            for segment in self._home.segments()
            if segment.end > self._first
        ]
        # Taken where computation takes memory, so before the lane waits for it: what was there
        # before may still be read.
        rooms = [self._buffer.room_like(segment.keys, segment.values) for segment in segments]
        up = self._lanes.up
        # The layer that had this buffer before: its computation and its copies home are over
        # before anything is written here.
        up.after_compute()
        up.after_lane(self._lanes.down)
        is_queued = self._home.tier.is_pinned
        with up.using():
            for segment, (keys, values) in zip(segments, rooms, strict=True):
                place = slice(segment.start - self._first, segment.end - self._first)
                copy_tokens(keys[:, :, place], segment.keys, is_queued=is_queued)
                copy_tokens(values[:, :, place], segment.values, is_queued=is_queued)
        self._fetched = up.mark()

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Writes new tokens `[1, G, N, D]` into the device buffer and sends them home."""
        self._lanes.up.compute_after(self._fetched)
        room_keys, room_values = self._buffer.room_like(keys, values)
        start = self.tokens - self._first
        place = slice(start, start + keys.shape[2])
        room_keys[:, :, place].copy_(keys)
        room_values[:, :, place].copy_(values)
        down = self._lanes.down
        down.after_compute()
        with down.using():
            self._home.append(room_keys[:, :, place], room_values[:, :, place])

    def segments(self) -> list[Segment]:
        """All tokens so far, or the last of them, as one segment on the device."""
        if self._buffer.keys is None or self._buffer.values is None or not self.tokens:
            return []
        held = slice(0, self.tokens - self._first)
        return [
            Segment(self._first, self._buffer.keys[:, :, held], self._buffer.values[:, :, held])
        ]


class HiddenStates:
    """The hidden states `[1, S, E]` between two layers, read and written chunk by chunk.

    From the host or the disk of a CUDA device, chunks come up into two device buffers that take
    turns, one chunk ahead of the computation.

    Args:
        tier: where they live.
        device: where the model computes.
        lanes: the copying directions.
        tokens: S.
        width: E.
        dtype: the hidden states'.

    Attributes:
        tier: as given.
        tokens: S.
    """

    def __init__(
        self,
        tier: Tier,
        device: torch.device,
        lanes: Lanes,
        *,
        tokens: int,
        width: int,
        dtype: torch.dtype,
    ) -> None:
        self.tier = tier
        # `[1, rows, E]` each; one but for pinned memory.
        self._pieces: list[tuple[int, Tensor]] = []
        start = 0
        while start < tokens:
            rows = tier.piece_tokens(tokens - start, width * dtype.itemsize)
            self._pieces.append((start, tier.empty(1, rows, width, dtype=dtype)))
            start += rows
        self._is_remote = tier.is_remote
        self._device = device
        self._lanes = lanes
        self.tokens, self._width, self._dtype = tokens, width, dtype
        self._written: dict[int, torch.cuda.Event | None] = {}
        self._coming: dict[int, tuple[Tensor, torch.cuda.Event | None]] = {}

    @property
    def used_bytes(self) -> int:
        """Bytes taken on the tier."""
        return sum(piece.nbytes for _, piece in self._pieces)

    def prefetch(self, start: int, end: int) -> None:
        """Begins to bring a chunk to the device. Its last `write` must have been called."""
        if not self._is_remote or start in self._coming:
            return
        up = self._lanes.up
        up.after_event(self._written.get(start))
        places = self._places(start, end)
        with up.using():
            shape = (1, end - start, places[0].shape[2])
            chunk = torch.empty(shape, dtype=places[0].dtype, device=self._device)
            for part, place in _side_by_side(chunk, places):
                part.copy_(place, non_blocking=self.tier.is_pinned)
                self.tier.drop(place)
        self._coming[start] = (chunk, up.mark())

    def read(self, start: int, end: int) -> Tensor:
        """The chunk `[1, end - start, E]` on the device."""
        if not self._is_remote:
            (place,) = self._places(start, end)
            return place
        self.prefetch(start, end)
        chunk, arrived = self._coming.pop(start)
        self._lanes.up.compute_after(arrived)
        if chunk.is_cuda:
            chunk.record_stream(torch.cuda.current_stream(self._device))
        return chunk

    def write(self, start: int, chunk: Tensor) -> None:
        """Stores a chunk's hidden states `[1, N, E]`, over those before."""
        down = self._lanes.down
        if self._is_remote:
            down.after_compute()
        with down.using() if self._is_remote else nullcontext():
            for part, place in _side_by_side(chunk, self._places(start, start + chunk.shape[1])):
                place.copy_(part, non_blocking=self.tier.is_pinned)
                self.tier.drop(place)
        if self._is_remote:
            down.keep_until_copied(chunk)
            self._written[start] = down.mark()

    def pieces(self) -> list[Tensor]:
        """All rows in order, as views `[1, N, E]` where they live. Copies must not be under way."""
        return [piece[:, : self.tokens - first] for first, piece in self._pieces]

    def forget_coming(self) -> None:
        """Chunks that were prefetched are not read any more."""
        self._coming.clear()

    def moved_to(self, tier: Tier) -> HiddenStates:
        """The same on another tier. Copies must not be under way.

        Raises:
            OutOfMemory: the disk has no room for it.
        """
        moved = HiddenStates(
            tier,
            self._device,
            self._lanes,
            tokens=self.tokens,
            width=self._width,
            dtype=self._dtype,
        )
        moved.fill(self.pieces())
        return moved

    def fill(self, pieces: Iterable[Tensor]) -> None:
        """Writes rows `[1, N, E]` piece after piece from the first one on, and waits for it."""
        row = 0
        for piece in pieces:
            for part in torch.split(piece, _FILLED_ROWS, dim=1):
                self.write(row, part)
                row += part.shape[1]
        self._lanes.synchronize()
        self._written.clear()

    def _places(self, start: int, end: int) -> list[Tensor]:
        """Where rows `start` to `end` lie, as views in order."""
        return [
            piece[:, max(0, start - first) : end - first]
            for first, piece in self._pieces
            if first < end and start < first + piece.shape[1]
        ]


def _side_by_side(chunk: Tensor, places: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """The chunk's rows, cut as their places are."""
    lengths = [place.shape[1] for place in places]
    return zip(torch.split(chunk, lengths, dim=1), places, strict=True)
