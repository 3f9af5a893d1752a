"""Attention over one run of keys, with what is needed to merge it exactly with others."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from mom_core.native import kernels
from mom_core.native.library import FEW_ROWS, needs_gradients

Partial = tuple[Tensor, Tensor]
# Key runs shorter than this are not worth a second kernel call for the sake of balance.
_SPLIT_FROM_KEYS = 2048
# Two pieces balance an odd number of heads over the cores; more brought nothing (docs/log.md).
_SPLIT_PIECES = 2
# Scores that plain torch holds at a time, and the fewest keys of a block of them: each block costs
# a merge of outputs, which are as wide as a hundred keys or so.
_SCORES_BYTES = 64 << 20
_LEAST_KEYS = 1024


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


def kernels_of(query: Tensor) -> str:
    """The type of the device whose kernels are called: that of the query."""
    return query.device.type


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
    device_type = kernels_of(query)
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
    is_recent = is_recent_gpu(query.device)
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
def is_recent_gpu(device: torch.device) -> bool:
    """Whether a GPU runs flash attention, and bf16 in the memory-efficient kernel."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


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
