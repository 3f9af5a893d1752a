"""Partial attention: attention to one run of keys, which can be merged exactly with others.

A partial is an output and the log-sum-exp of its scores, by which partials are weighted when they
are merged. These kernels return the log-sum-exp: torch's flash kernel on the CPU (fp32, bf16, fp16,
fp64), flash attention on CUDA (fp16, bf16), and the memory-efficient kernel on CUDA (fp32). Plain
torch (`_dense_partial`) does what no kernel can: soft-caps and unequal head sizes.

Source: the merge is that of FlashDecoding and Ring Attention.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from mom_core.native import kernels
from mom_core.native.library import FEW_ROWS, needs_gradients

Partial = tuple[Tensor, Tensor]
# Shorter runs of keys are not worth a second kernel call to balance the cores.
_SPLIT_FROM_KEYS = 2048
# Two pieces balance an odd number of heads over the cores; more gained nothing (docs/log.md).
_SPLIT_PIECES = 2
# Bytes of scores that plain torch holds at a time, and the fewest keys in a block of them. Each
# block costs a merge of outputs, which are about as wide as a hundred keys.
_SCORES_BYTES = 64 << 20
_LEAST_KEYS = 1024


def merge_partials(first: Partial, second: Partial) -> Partial:
    """Merges two partial attentions of the same queries to different keys, exactly.

    Args:
        first: output `[1, H, Q, D]` and log-sum-exp `[1, H, Q]` in fp32; -inf means no key seen.
        second: the same for other keys.

    Returns:
        The partial attention to both sets of keys, with an output in fp32 or wider.
    """
    first_output, first_lse = first
    second_output, second_lse = second
    work = torch.promote_types(first_output.dtype, torch.float32)
    weight = torch.sigmoid(second_lse - first_lse).nan_to_num(0.0).unsqueeze(-1).to(work)
    output = torch.lerp(first_output.to(work), second_output.to(work), weight)
    return output, torch.logaddexp(first_lse, second_lse)


def kernels_of(query: Tensor) -> str:
    """The type of device, for example "cuda", whose kernels compute a query's attention."""
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
    """Attention to one run of keys, by the fastest kernel that can compute it.

    Args:
        query: queries `[1, H, Q, D]`.
        keys: keys `[1, G, K, D]`, on the query's device.
        values: values `[1, G, K, D]`.
        scale: factor on the scores.
        is_causal: whether query i sees only keys 0 to i; requires Q == K.
        mask: mask `[Q, K]` of bool, True where a query sees a key; None lets it see all.
        softcap: limit on the scores, as for `segment_attention`.
        through_lse: whether gradients must pass through the log-sum-exp; fused kernels drop them.

    Returns:
        The output `[1, H, Q, D]` and the log-sum-exp of the scores `[1, H, Q]`, in fp32 or wider.
        A query that sees no key has output 0 and log-sum-exp -inf.
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
    """Turns the heads of a group into query rows: `[1, H, Q, D]` -> `[1, G, (H/G) Q, D]`."""
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
    """Attention of few rows to many keys, which are split so that every core has work.

    The pieces are strided views that the kernel takes as a batch, so nothing is copied.
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
    """A view of `[G, n x piece, D]` as `[n, G, piece, D]`."""
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
    """Memory-efficient attention, one call per head of a group, as it takes no grouped heads."""
    kv_heads, query_tokens = keys.shape[1], query.shape[2]
    group = query.shape[1] // kv_heads
    bias = None
    if mask is not None:
        # The kernel requires aligned rows in the bias, hence a slice of a padded buffer.
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
    """Attention in plain torch, by blocks whose scores take at most `_SCORES_BYTES`."""
    heads, query_tokens = query.shape[1], query.shape[2]
    kv_heads, key_tokens, head_dim = keys.shape[1:]
    bytes_each = torch.promote_types(query.dtype, torch.float32).itemsize
    rows = max(1, min(query_tokens, _SCORES_BYTES // (bytes_each * heads * _LEAST_KEYS)))
    widened = kv_heads * max(head_dim, values.shape[3])
    block = max(1, _SCORES_BYTES // (bytes_each * max(heads * rows, widened)))
    parts = []
    for top in range(0, query_tokens, rows):
        some = slice(top, top + rows)
        # Skip keys that no query of a causal block sees.
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
    """One block of `_dense_partial`, with an output in fp32 or wider."""
    heads, query_tokens = query.shape[1], query.shape[2]
    work = torch.promote_types(query.dtype, torch.float32)
    scores = _fold(query, keys.shape[1]).to(work) @ keys.to(work).transpose(-1, -2) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores.masked_fill_(~mask.repeat(heads // keys.shape[1], 1), -math.inf)
    lse = torch.logsumexp(scores, dim=-1)
    # All scores of a row that sees no key are -inf; its weights must be 0, not NaN.
    finite = lse.masked_fill(lse == -math.inf, 0.0)
    weights = torch.exp(scores - finite.unsqueeze(-1))
    return _unfold((weights @ values.to(work), lse), heads, query_tokens)


def _blank_rows(output: Tensor, lse: Tensor, mask: Tensor | None) -> Partial:
    """Gives rows that see no key no weight; the kernels return log-sum-exp 0 for them."""
    if mask is None:
        return output, lse
    sees_nothing = ~mask.any(dim=1)
    lse = lse.masked_fill(sees_nothing, -math.inf)
    return output.masked_fill(sees_nothing.unsqueeze(-1), 0.0), lse
