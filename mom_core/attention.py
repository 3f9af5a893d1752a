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
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

from mom_core.native import kernels
from mom_core.native.library import FEW_ROWS, Kernels, needs_gradients

Partial = tuple[Tensor, Tensor]

# Key runs shorter than this are not worth a second kernel call for the sake of balance.
_SPLIT_FROM_KEYS = 2048
# Two pieces balance an odd number of heads over the cores; more brought nothing (docs/log.md).
_SPLIT_PIECES = 2
_SMALLEST_WINDOW_BLOCK = 256
# Scores that plain torch holds at a time, and the fewest keys of a block of them: each block costs
# a merge of outputs, which are as wide as a hundred keys or so.
_SCORES_BYTES = 64 << 20
_LEAST_KEYS = 1024

_pretended_device: ContextVar[str | None] = ContextVar("pretended device", default=None)


@contextmanager
def attention_as_on(device_type: str) -> Iterator[None]:
    """Inside, the kernels of this kind of device are called, wherever the tensors are.

    For simulation: fake tensors of a GPU cannot be made without one.
    """
    before = _pretended_device.set(device_type)
    try:
        yield
    finally:
        _pretended_device.reset(before)


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


def merge_partials(first: Partial, second: Partial) -> Partial:
    """Joins two partial attentions of the same queries over different keys, exactly.

    Args:
        first: output `[1, H, Q, D]` and log-sum-exp `[1, H, Q]` in fp32 (-inf: saw no key).
        second: the same over other keys.

    Returns:
        The partial attention over the keys of both, its output in at least fp32.
    """
    first_output, first_lse = first
    second_output, second_lse = second
    work = torch.promote_types(first_output.dtype, torch.float32)
    weight = torch.sigmoid(second_lse - first_lse).nan_to_num(0.0).unsqueeze(-1).to(work)
    output = torch.lerp(first_output.to(work), second_output.to(work), weight)
    return output, torch.logaddexp(first_lse, second_lse)


def partial_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    scale: float,
    is_causal: bool = False,
    mask: Tensor | None = None,
    softcap: float | None = None,
    through_lse: bool = False,
) -> Partial:
    """Attention over one run of keys, with what is needed to merge it with others.

    Args:
        query: `[1, H, Q, D]`.
        keys: `[1, G, K, D]`, on the query's device.
        values: `[1, G, K, D]`.
        scale: factor on the scores.
        is_causal: query i sees keys 0..i; needs Q == K.
        mask: `[Q, K]` bool, True where the query sees the key; None sees all.
        softcap: see `segment_attention`.
        through_lse: gradients must pass through the log-sum-exp, which fused kernels cut off.

    Returns:
        The output `[1, H, Q, D]` and the log-sum-exp of the scores `[1, H, Q]`, fp32 or wider;
        a query that sees no key has output 0 and log-sum-exp -inf.
    """
    if softcap is not None or through_lse or query.shape[-1] != values.shape[-1]:
        return _dense_partial(query, keys, values, scale, is_causal, mask, softcap)
    device_type = _pretended_device.get() or query.device.type
    if device_type == "cpu":
        return _cpu_partial(query, keys, values, scale, is_causal, mask)
    if device_type == "cuda":
        return _cuda_partial(query, keys, values, scale, is_causal, mask)
    return _dense_partial(query, keys, values, scale, is_causal, mask, softcap)


def _fold(query: Tensor, kv_heads: int) -> Tensor:
    """`[1, H, Q, D]` -> `[1, G, (H/G) Q, D]`: the heads of a group as further query rows."""
    return query.reshape(1, kv_heads, -1, query.shape[-1])


def _unfold(partial: Partial, heads: int, query_tokens: int) -> Partial:
    output, lse = partial
    return (
        output.reshape(1, heads, query_tokens, output.shape[-1]),
        lse.reshape(1, heads, query_tokens),
    )


def _cpu_partial(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, is_causal: bool, mask: Tensor | None
) -> Partial:
    heads, query_tokens = query.shape[1], query.shape[2]
    if mask is None and not is_causal and query_tokens <= FEW_ROWS:
        folded = _fold(query, keys.shape[1])
        return _unfold(_cpu_few_rows(folded, keys, values, scale), heads, query_tokens)
    additive = None
    if mask is not None:
        additive = torch.zeros(mask.shape, dtype=query.dtype).masked_fill_(~mask, -math.inf)
    output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, keys, values, 0.0, is_causal, attn_mask=additive, scale=scale
    )
    return _blank_rows(output, lse, mask)


def _cpu_few_rows(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Partial:
    """Few query rows, many keys: the keys are split so that every core has work.

    The pieces are strided views that enter the kernel as a batch; nothing is copied.
    """
    ours = kernels()
    if ours is not None and ours.takes_attention(query, keys, values):
        return ours.attend_rows(query, keys, values, scale)
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    key_tokens = keys.shape[2]
    is_short = key_tokens < _SPLIT_FROM_KEYS or torch.get_num_threads() == 1
    if is_short or needs_gradients(query, keys, values):
        output, lse = flash(query, keys, values, 0.0, False, scale=scale)
        return output, lse
    piece = key_tokens // _SPLIT_PIECES
    even = piece * _SPLIT_PIECES
    output, lse = flash(
        query.expand(_SPLIT_PIECES, -1, -1, -1),
        _as_batch(keys[0, :, :even], piece),
        _as_batch(values[0, :, :even], piece),
        0.0,
        False,
        scale=scale,
    )
    merged: Partial = (output[:1], lse[:1])
    for i in range(1, _SPLIT_PIECES):
        merged = merge_partials(merged, (output[i : i + 1], lse[i : i + 1]))
    if even < key_tokens:
        tail = flash(query, keys[:, :, even:], values[:, :, even:], 0.0, False, scale=scale)
        merged = merge_partials(merged, (tail[0], tail[1]))
    return merged


def _as_batch(heads: Tensor, piece: int) -> Tensor:
    """`[G, n x piece, D]` -> `[n, G, piece, D]`, a view."""
    kv_heads, _, head_dim = heads.shape
    return heads.view(kv_heads, -1, piece, head_dim).transpose(0, 1)


def _cuda_partial(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, is_causal: bool, mask: Tensor | None
) -> Partial:
    is_half = query.dtype in (torch.float16, torch.bfloat16)
    is_recent = _is_recent_gpu(query.device)
    if mask is None and is_half and is_recent and query.shape[-1] <= 256:
        heads, query_tokens = query.shape[1], query.shape[2]
        rows = query if is_causal else _fold(query, keys.shape[1])
        out = torch.ops.aten._scaled_dot_product_flash_attention(
            rows, keys, values, 0.0, is_causal, scale=scale
        )
        return _unfold((out[0], out[1]), heads, query_tokens)
    if query.dtype is torch.bfloat16 and not is_recent:
        return _dense_partial(query, keys, values, scale, is_causal, mask, None)
    return _cuda_efficient(query, keys, values, scale, is_causal, mask)


@functools.cache
def _is_recent_gpu(device: torch.device) -> bool:
    """Whether flash attention runs there, and bf16 in the memory-efficient kernel."""
    # A pretended GPU is a recent one.
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)


def _cuda_efficient(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, is_causal: bool, mask: Tensor | None
) -> Partial:
    """The memory-efficient kernel takes no grouped heads: one call per head of a group."""
    kv_heads, query_tokens = keys.shape[1], query.shape[2]
    group = query.shape[1] // kv_heads
    bias = None
    if mask is not None:
        # The kernel wants the bias' rows aligned: a padded buffer, seen through a slice.
        padded = (mask.shape[1] + 15) // 16 * 16
        bias = torch.zeros(mask.shape[0], padded, dtype=query.dtype, device=query.device)
        bias = bias[:, : mask.shape[1]].masked_fill_(~mask, -math.inf)
        bias = bias.expand(1, kv_heads, -1, -1)
    output = torch.empty(*query.shape[:3], values.shape[-1], dtype=query.dtype, device=query.device)
    lse = torch.empty(query.shape[:3], dtype=torch.float32, device=query.device)
    for i in range(group):
        result = torch.ops.aten._scaled_dot_product_efficient_attention(
            query[:, i::group], keys, values, bias, True, 0.0, is_causal, scale=scale
        )
        output[:, i::group] = result[0]
        # The kernel pads the log-sum-exp to a multiple of 32 rows.
        lse[:, i::group] = result[1][:, :, :query_tokens]
    return _blank_rows(output, lse, mask)


def _dense_partial(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: float,
    is_causal: bool,
    mask: Tensor | None,
    softcap: float | None,
) -> Partial:
    """Plain torch, a block of scores at a time: they never take more than `_SCORES_BYTES`."""
    heads, query_tokens = query.shape[1], query.shape[2]
    kv_heads, key_tokens, head_dim = keys.shape[1:]
    bytes_each = torch.promote_types(query.dtype, torch.float32).itemsize
    rows = max(1, min(query_tokens, _SCORES_BYTES // (bytes_each * heads * _LEAST_KEYS)))
    widened = kv_heads * max(head_dim, values.shape[3])
    block = max(1, _SCORES_BYTES // (bytes_each * max(heads * rows, widened)))
    parts = []
    for top in range(0, query_tokens, rows):
        some = slice(top, top + rows)
        # What no query of a causal block sees is not multiplied.
        seen = min(key_tokens, top + rows) if is_causal else key_tokens
        merged: Partial | None = None
        for left in range(0, seen, block):
            run = slice(left, min(left + block, seen))
            block_mask = None if mask is None else mask[some, run]
            if is_causal and run.stop > top + 1:
                shape = (min(rows, query_tokens - top), run.stop - left)
                block_mask = torch.ones(shape, dtype=torch.bool, device=query.device)
                block_mask.tril_(top - left)
            partial = _dense_block(
                query[:, :, some],
                keys[:, :, run],
                values[:, :, run],
                scale,
                block_mask,
                softcap,
            )
            merged = partial if merged is None else merge_partials(merged, partial)
        if merged is not None:
            parts.append(merged)
    output, lse = (torch.cat(part, dim=2) for part in zip(*parts, strict=True))
    return output.to(query.dtype), lse


def _dense_block(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: float,
    mask: Tensor | None,
    softcap: float | None,
) -> Partial:
    """One block of `_dense_partial`; its output is fp32 or wider."""
    heads, query_tokens = query.shape[1], query.shape[2]
    work = torch.promote_types(query.dtype, torch.float32)
    scores = _fold(query, keys.shape[1]).to(work) @ keys.to(work).transpose(-1, -2) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores.masked_fill_(~mask.repeat(heads // keys.shape[1], 1), -math.inf)
    lse = torch.logsumexp(scores, dim=-1)
    # Of a row that sees no key all weights are 0, as its scores are -inf.
    finite = lse.masked_fill(lse == -math.inf, 0.0)
    weights = torch.exp(scores - finite.unsqueeze(-1))
    return _unfold((weights @ values.to(work), lse), heads, query_tokens)


def _blank_rows(output: Tensor, lse: Tensor, mask: Tensor | None) -> Partial:
    """Rows that see no key: the kernels give them log-sum-exp 0, which would take weight."""
    if mask is None:
        return output, lse
    sees_nothing = ~mask.any(dim=1)
    lse = lse.masked_fill(sees_nothing, -math.inf)
    return output.masked_fill(sees_nothing.unsqueeze(-1), 0.0), lse
