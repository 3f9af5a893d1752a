"""Copies of keys, values and hidden states between device and host, alongside the computation.

On CUDA, each direction has its own stream, so copies overlap with the computation and with each
other. Events keep the order where one depends on another. Without CUDA, copies run immediately.
`LayerStage` holds the one layer whose KV must be on the device during prefill, and `HiddenStates`
holds the hidden states `[1, S, E]` between layers.

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

# Rows of hidden states per copy when all of them move.
_FILLED_ROWS = 4096


class KVSink(Protocol):
    """What attention needs from a layer's KV: appending tokens, and segments to attend to."""

    @property
    def tokens(self) -> int:
        """Number of tokens held."""

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Appends keys and values `[1, G, N, D]` of new tokens."""

    def segments(self) -> list[Segment]:
        """All segments, in order of position."""


@runtime_checkable
class CroppableKV(Protocol):
    """Keys and values whose last tokens can be dropped."""

    def crop(self, tokens: int) -> None:
        """Drops everything after the first `tokens` tokens."""


class Lane:
    """One direction of copying: a stream on CUDA; elsewhere copies run immediately.

    Args:
        device: where the model computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def after_compute(self) -> None:
        """Makes later copies wait for all computation queued so far."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))

    def after_lane(self, other: Lane) -> None:
        """Makes later copies wait for everything that another lane has queued so far."""
        if self._stream is not None and other._stream is not None:
            self._stream.wait_stream(other._stream)

    def mark(self) -> torch.cuda.Event | None:
        """An event that computation or another lane can wait for; None without CUDA."""
        return None if self._stream is None else self._stream.record_event()

    def after_event(self, event: torch.cuda.Event | None) -> None:
        """Makes later copies wait for an event."""
        if self._stream is not None and event is not None:
            self._stream.wait_event(event)

    def compute_after(self, event: torch.cuda.Event | None) -> None:
        """Makes later computation wait for an event."""
        if event is not None:
            torch.cuda.current_stream(self._device).wait_event(event)

    def using(self) -> AbstractContextManager[object]:
        """Inside, work is queued on this lane."""
        if self._stream is None:
            return nullcontext()
        # torch leaves `stream` untyped.
        return torch.cuda.stream(self._stream)  # type: ignore[no-any-return, unused-ignore]

    def keep_until_copied(self, tensor: Tensor) -> None:
        """Stops the allocator from reusing a tensor's memory while this lane reads it."""
        if self._stream is not None and tensor.is_cuda:
            tensor.record_stream(self._stream)

    def synchronize(self) -> None:
        """Waits until all queued copies are done."""
        if self._stream is not None:
            self._stream.synchronize()


class Lanes:
    """Both directions of copying: `down` to the host and `up` to the device.

    Args:
        device: where the model computes.
    """

    def __init__(self, device: torch.device) -> None:
        self.down = Lane(device)
        self.up = Lane(device)

    def synchronize(self) -> None:
        """Waits until both directions are idle."""
        self.down.synchronize()
        self.up.synchronize()


class StageBuffer:
    """Room on the device for one layer's KV, reused by layer after layer.

    Args:
        tier: tier that allocates the room.
        capacity_tokens: number of tokens it can hold.
        lanes: directions of copying; copies may still use the room when it is replaced.
    """

    def __init__(self, tier: Tier, capacity_tokens: int, lanes: Lanes) -> None:
        self._tier = tier
        self._capacity_tokens = capacity_tokens
        self._lanes = lanes
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def room_like(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Room `[1, G, capacity, D]` for keys and values of this shape and dtype.

        Args:
            keys: keys `[1, G, N, D]` that set G, D and the dtype.
            values: the same for values.
        """
        self.keys = self._like(keys, self.keys)
        self.values = self._like(values, self.values)
        return self.keys, self.values

    def _like(self, new: Tensor, before: Tensor | None) -> Tensor:
        if before is not None:
            if before.shape[1::2] == new.shape[1::2]:
                return before
            # Copies to and from the old room may still be queued.
            self._lanes.down.keep_until_copied(before)
            self._lanes.up.keep_until_copied(before)
        shape = (1, new.shape[1], self._capacity_tokens, new.shape[3])
        return self._tier.empty(*shape, dtype=new.dtype)

    @property
    def used_bytes(self) -> int:
        """Bytes allocated on the device."""
        return sum(t.numel() * t.element_size() for t in (self.keys, self.values) if t is not None)


class LayerStage:
    """One layer's KV on the device, while its home is the host or the disk.

    Creating a stage starts the copy of what its home already holds, so it can be created one
    layer early. Appended tokens are used on the device, and copied home at once.

    Args:
        home: the layer's KV on its tier; nothing else may append to it.
        buffer: room on the device.
        lanes: directions of copying.
        last_tokens: number of latest tokens to copy, for a layer with a window; None copies all.
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
        """Number of tokens in the layer, including those not copied to the device."""
        return self._home.tokens

    def _fetch(self) -> None:
        segments = [
            segment.slice(self._first, segment.end)
            for segment in self._home.segments()
            if segment.end > self._first
        ]
        # Allocate on the compute stream, before the lane waits for it: queued computation may
        # still read the memory that is reused.
        rooms = [self._buffer.room_like(segment.keys, segment.values) for segment in segments]
        up = self._lanes.up
        # The buffer's previous layer must have finished computing and copying home.
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
        """Writes new tokens `[1, G, N, D]` into the device buffer, and copies them home."""
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
        """The tokens on the device as one segment: all so far, or the latest ones."""
        if self._buffer.keys is None or self._buffer.values is None or not self.tokens:
            return []
        held = slice(0, self.tokens - self._first)
        return [
            Segment(self._first, self._buffer.keys[:, :, held], self._buffer.values[:, :, held])
        ]


class HiddenStates:
    """The hidden states `[1, S, E]` between two layers, read and written chunk by chunk.

    If they live on the host or the disk beside a GPU, chunks are copied to the device one chunk
    ahead of the computation.

    Args:
        tier: where the hidden states live.
        device: where the model computes.
        lanes: directions of copying.
        tokens: number of tokens, S.
        width: numbers per token, E.
        dtype: dtype of the hidden states.

    Attributes:
        tier: where the hidden states live.
        tokens: number of tokens, S.
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
        # First row and tensor `[1, rows, E]` of each piece; only pinned memory has several.
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
        """Bytes allocated on the tier."""
        return sum(piece.nbytes for _, piece in self._pieces)

    def prefetch(self, start: int, end: int) -> None:
        """Starts copying a chunk to the device; its last `write` must have been called.

        Args:
            start: the chunk's first row.
            end: the row after its last.
        """
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
        """The chunk `[1, end - start, E]` on the device, from row `start` to `end`, exclusive."""
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
        """Overwrites rows with a chunk.

        Args:
            start: first row to write.
            chunk: hidden states `[1, N, E]`.
        """
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
        """Views `[1, N, E]` of all rows, in order, where they live. No copy may be running."""
        return [piece[:, : self.tokens - first] for first, piece in self._pieces]

    def forget_coming(self) -> None:
        """Drops chunks that were prefetched but will not be read."""
        self._coming.clear()

    def moved_to(self, tier: Tier) -> HiddenStates:
        """A copy on another tier. No other copy may be running.

        Raises:
            OutOfMemory: the disk has no room for the hidden states.
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
        """Writes pieces `[1, N, E]` one after another from row 0, and waits for the copies."""
        row = 0
        for piece in pieces:
            for part in torch.split(piece, _FILLED_ROWS, dim=1):
                self.write(row, part)
                row += part.shape[1]
        self._lanes.synchronize()
        self._written.clear()

    def _places(self, start: int, end: int) -> list[Tensor]:
        """Views of rows `start` to `end`, in order, where they live."""
        return [
            piece[:, max(0, start - first) : end - first]
            for first, piece in self._pieces
            if first < end and start < first + piece.shape[1]
        ]


def _side_by_side(chunk: Tensor, places: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of a chunk's rows and the view they belong in."""
    lengths = [place.shape[1] for place in places]
    return zip(torch.split(chunk, lengths, dim=1), places, strict=True)
