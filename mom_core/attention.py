"""Segment attention: exact attention over keys and values that are stored in segments.

A layer's keys and values are a list of `Segment`s: contiguous runs of tokens, each on some device.
Each segment gets one *partial* attention (`mom_core.partial_attention`), computed where the segment
lives. The partials are then merged exactly.

New tokens attend to themselves as a causal square. For everything earlier they need no mask, so no
`[C, T]` mask is ever built. Only the edge of a sliding window needs one, of at most
`[block, block + window]`.

On CPUs that multiply bf16 in pairs, our own kernel (`mom_core.native`) computes whole segments,
including causal order, windows and soft-caps.

Source: ours; the merge is that of FlashDecoding and Ring Attention.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mom_core.native import kernels
from mom_core.native.library import FEW_ROWS, Kernels, needs_gradients
from mom_core.partial_attention import Partial, merge_partials, partial_attention

_SMALLEST_WINDOW_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Segment:
    """Keys and values of one contiguous run of tokens.

    Args:
        start: position of the first token.
        keys: keys `[1, G, K, D]`, on the device or the host.
        values: values `[1, G, K, D]`, on the same device and in the same dtype.
    """

    start: int
    keys: Tensor
    values: Tensor

    @property
    def end(self) -> int:
        """Position after the last token."""
        return self.start + self.keys.shape[2]

    def slice(self, start: int, end: int) -> Segment:
        """A view of the tokens from position `start` to `end`, exclusive."""
        if start <= self.start and end >= self.end:
            return self
        lo, hi = max(start, self.start) - self.start, min(end, self.end) - self.start
        return Segment(self.start + lo, self.keys[:, :, lo:hi], self.values[:, :, lo:hi])


def segment_attention(
    query: Tensor,
    query_start: int,
    segments: Sequence[Segment],
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Causal attention of new tokens to all segments, which include the new tokens.

    Args:
        query: queries of the new tokens, `[1, H, Q, D]`; H is a multiple of the segments' G.
        query_start: position of the first new token. The segments reach at least to position
            `query_start + Q`.
        segments: keys and values in order of position, without gaps or overlaps.
        scale: factor on the scores.
        window: window W: a token sees itself and the W - 1 tokens before it; None for no window.
        softcap: limit on the scores, which become `softcap * tanh(score / softcap)`; None for no
            limit.
        sinks: one logit per head, `[H]`, that takes weight but has no value; None for no sinks.

    Returns:
        The output `[1, H, Q, D]`, on the query's device and in its dtype.
    """
    query_tokens = query.shape[2]
    ours = _chunk_kernels(query, segments, softcap)
    if ours is not None:
        whole = _attend_by_kernel(ours, query, query_start, segments, scale, window, softcap)
        return _finish(whole, sinks, query.dtype)
    block = query_tokens if window is None else max(window, _SMALLEST_WINDOW_BLOCK)
    if query_tokens <= block:
        whole = _attend_block(
            query, query_start, segments, scale, window, softcap, sinks is not None
        )
        return _finish(whole, sinks, query.dtype)
    # With a window, long queries are split into blocks to keep the band mask and the work small.
    output = torch.empty_like(query)
    for lo in range(0, query_tokens, block):
        some = query[:, :, lo : lo + block]
        part = _attend_block(
            some, query_start + lo, segments, scale, window, softcap, sinks is not None
        )
        output[:, :, lo : lo + block] = _finish(part, sinks, query.dtype)
    return output


def _finish(whole: Partial, sinks: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The output of attention to all keys, reduced by the weight that the sinks take."""
    output, lse = whole
    if sinks is not None:
        # A sink acts as one more key without a value: it only takes weight.
        share = torch.sigmoid(lse - sinks.float().view(1, -1, 1)).unsqueeze(-1)
        output = output * share.to(output.dtype)
    return output.to(dtype)


def _chunk_kernels(
    query: Tensor, segments: Sequence[Segment], softcap: float | None
) -> Kernels | None:
    """Our kernels, if they should compute these queries; otherwise None."""
    # Few rows have their own kernel, which has no soft-caps.
    if query.device.type != "cpu" or (query.shape[2] <= FEW_ROWS and softcap is None):
        return None
    ours = kernels()
    if ours is None or not all(ours.takes_chunk(query, s.keys, s.values) for s in segments):
        return None
    return ours


def _attend_by_kernel(
    ours: Kernels,
    query: Tensor,
    query_start: int,
    segments: Sequence[Segment],
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Partial:
    seen = _seen(segments, query_start, query_start + query.shape[2], window)
    merged: Partial | None = None
    for segment in seen:
        partial = ours.attend_chunk(
            query,
            segment.keys,
            segment.values,
            offset=query_start - segment.start,
            scale=scale,
            window=window,
            softcap=softcap,
            # Partials are merged in fp32; a single one is the result.
            dtype=query.dtype if len(seen) == 1 else torch.float32,
        )
        merged = partial if merged is None else merge_partials(merged, partial)
    if merged is None:
        raise ValueError("segment_attention got no keys for these queries")
    return merged


def _attend_block(
    query: Tensor,
    query_start: int,
    segments: Sequence[Segment],
    scale: float,
    window: int | None,
    softcap: float | None,
    has_sinks: bool,
) -> Partial:
    query_end = query_start + query.shape[2]
    # From here to query_start, every query of the block sees every key.
    all_visible_from = 0 if window is None else query_end - window
    # The small query travels to the keys, once to each device, and one merged result comes back.
    # Its copy from a GPU waits for earlier copies, so the newest keys are on the host before it.
    query_at = {query.device: query}
    merged_at: dict[torch.device, Partial] = {}
    pieces = [
        piece
        for segment in _seen(segments, query_start, query_end, window)
        for piece in _pieces(segment, query_start, query_end, all_visible_from)
    ]
    # Merging partials, and sinks, make gradients depend on the log-sum-exp.
    through_lse = (len(pieces) > 1 or has_sinks) and needs_gradients(
        query, *(tensor for piece, _ in pieces for tensor in (piece.keys, piece.values))
    )
    for piece, is_causal in pieces:
        home = piece.keys.device
        if home not in query_at:
            query_at[home] = query.to(home)
        mask = None
        if is_causal is None:
            mask = _band_mask(query_start, query_end, piece, window, home)
        partial = partial_attention(
            query_at[home],
            piece.keys,
            piece.values,
            scale=scale,
            is_causal=bool(is_causal),
            mask=mask,
            softcap=softcap,
            through_lse=through_lse,
        )
        before = merged_at.get(home)
        merged_at[home] = partial if before is None else merge_partials(before, partial)
    if not merged_at:
        raise ValueError("segment_attention got no keys for these queries")
    first, *rest = (
        (output.to(query.device), lse.to(query.device)) for output, lse in merged_at.values()
    )
    return functools.reduce(merge_partials, rest, first)


def _seen(
    segments: Sequence[Segment], query_start: int, query_end: int, window: int | None
) -> list[Segment]:
    """The parts of the segments that at least one query sees, in order."""
    first_visible = 0 if window is None else max(0, query_start - window + 1)
    return [
        segment.slice(first_visible, query_end)
        for segment in segments
        if segment.end > first_visible and segment.start < query_end
    ]


def _pieces(
    segment: Segment, query_start: int, query_end: int, all_visible_from: int
) -> list[tuple[Segment, bool | None]]:
    """Splits a segment by what it needs: no mask (False), causal order (True), a mask (None).

    Only keys that some queries see and others do not need a mask: those at the edge of a window,
    and those of new tokens.
    """
    edge_end = min(max(all_visible_from, segment.start), query_start, segment.end)
    past_end = min(query_start, segment.end)
    new = segment.slice(query_start, query_end) if segment.end > query_start else None
    is_square = (
        new is not None
        and new.start == query_start
        and new.end == query_end
        and all_visible_from <= query_start
    )
    if is_square and query_end - query_start == 1:
        # A single token sees every visible key, so there is no causal order to enforce.
        return [(segment, False)]
    pieces: list[tuple[Segment, bool | None]] = []
    if segment.start < edge_end:
        pieces.append((segment.slice(segment.start, edge_end), None))
    if edge_end < past_end:
        pieces.append((segment.slice(edge_end, past_end), False))
    if new is not None:
        pieces.append((new, True if is_square else None))
    return pieces


def _band_mask(
    query_start: int, query_end: int, piece: Segment, window: int | None, device: torch.device
) -> Tensor:
    """A mask `[Q, K]` of bool, True where a query sees a key."""
    queries = torch.arange(query_start, query_end, device=device).unsqueeze(1)
    keys = torch.arange(piece.start, piece.end, device=device).unsqueeze(0)
    mask = keys <= queries
    return mask if window is None else mask & (keys > queries - window)
