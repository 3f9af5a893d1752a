"""Segment attention: exact attention over keys and values that lie in pieces.

A layer's keys and values are a list of `Segment`s, contiguous runs of tokens, each on some
device. Attention over all of them is computed as one *partial* attention per segment, where that
segment lives, each giving an output and its log-sum-exp; partials merge exactly, weighted by
their log-sum-exp. The new tokens against themselves are the causal square; against everything
earlier they need no mask, so no `[C, T]` mask ever exists. Only the edge of a sliding window
needs one, of at most `[block, block + window]`.

Kernels that return the log-sum-exp: torch's flash kernel on the CPU (fp32, bf16, fp16, fp64),
flash attention on CUDA (fp16, bf16), the memory-efficient kernel on CUDA (fp32), and
`_dense_partial`, plain torch, for what no kernel takes (soft-caps, unequal head sizes). On CPUs
that multiply bf16 in pairs, a kernel of ours (`mom_core.native`) takes whole segments, causal
order, windows and soft-caps included.

Source: ours (design, "segment attention"); the merge is the one of FlashDecoding and
Ring Attention.
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
        start: position of its first token.
        keys: `[1, G, K, D]`, on the device or the host.
        values: `[1, G, K, D]`, same place and dtype.
    """

    start: int
    keys: Tensor
    values: Tensor

    @property
    def end(self) -> int:
        """Position after its last token."""
        return self.start + self.keys.shape[2]

    def slice(self, start: int, end: int) -> Segment:
        """The part from position `start` to `end` (exclusive), a view."""
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
    """Causal attention of new tokens over all segments, themselves included.

    Args:
        query: `[1, H, Q, D]`; H is a multiple of the segments' G.
        query_start: position of the first query token. The segments hold the keys of the query
            tokens too, so together they reach at least to `query_start + Q`.
        segments: in order of position, without gaps or overlaps.
        scale: factor on the scores.
        window: W, a token sees itself and the W - 1 before it; None sees all before it.
        softcap: scores become `softcap * tanh(score / softcap)`; None leaves them.
        sinks: `[H]`, one logit a head that takes attention and gives no value; None has none.

    Returns:
        `[1, H, Q, D]` on the query's device, in its dtype.
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
    # With a window, long queries go in blocks: the band mask stays small and so does the work.
    output = torch.empty_like(query)
    for lo in range(0, query_tokens, block):
        some = query[:, :, lo : lo + block]
        part = _attend_block(
            some, query_start + lo, segments, scale, window, softcap, sinks is not None
        )
        output[:, :, lo : lo + block] = _finish(part, sinks, query.dtype)
    return output


def _finish(whole: Partial, sinks: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The output of attention over all keys, after sinks have taken their share."""
    output, lse = whole
    if sinks is not None:
        # A sink is one more key with no value: it only takes its share of the weight.
        share = torch.sigmoid(lse - sinks.float().view(1, -1, 1)).unsqueeze(-1)
        output = output * share.to(output.dtype)
    return output.to(dtype)


def _chunk_kernels(
    query: Tensor, segments: Sequence[Segment], softcap: float | None
) -> Kernels | None:
    """Our kernels, if theirs is the one for these queries."""
    # A few rows have a kernel of their own, but for soft-caps.
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
    query_end = query_start + query.shape[2]
    first_visible = 0 if window is None else max(0, query_start - window + 1)
    seen = [
        segment.slice(first_visible, query_end)
        for segment in segments
        if segment.end > first_visible and segment.start < query_end
    ]
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
            # Partials are merged in fp32; one alone is the result.
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
    first_visible = 0 if window is None else query_start - window + 1
    # From here to query_start every query of the block sees every key.
    all_visible_from = 0 if window is None else query_end - window
    # The query is tiny beside the keys, so it travels to them and not they to it, once to each
    # place; from there comes one merged result. From a GPU the way waits for all queued before it:
    # the newest keys have reached the host when the query is there.
    query_at = {query.device: query}
    merged_at: dict[torch.device, Partial] = {}
    pieces = [
        piece
        for segment in segments
        if segment.end > first_visible and segment.start < query_end
        for piece in _pieces(
            segment.slice(first_visible, query_end), query_start, query_end, all_visible_from
        )
    ]
    # Where partials are merged or sinks take a share, gradients pass through the log-sum-exp.
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


def _pieces(
    segment: Segment, query_start: int, query_end: int, all_visible_from: int
) -> list[tuple[Segment, bool | None]]:
    """Cuts a segment into what needs no mask (False), the causal square (True), a mask (None).

    A mask covers only the keys that some queries see and others do not: those at the edge of a
    window, and new ones.
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
        # One token sees itself and all that is visible: no causal order to keep.
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
    """`[Q, K]` bool, True where the query sees the key."""
    queries = torch.arange(query_start, query_end, device=device).unsqueeze(1)
    keys = torch.arange(piece.start, piece.end, device=device).unsqueeze(0)
    mask = keys <= queries
    return mask if window is None else mask & (keys > queries - window)
