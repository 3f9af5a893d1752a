"""Attention as the textbook has it: what segment attention is compared with."""

from __future__ import annotations

import math

import torch

SCALE = 0.25


def dense(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    start: int,
    window: int | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """The textbook formula, with every matrix written out."""
    heads, kv_heads = query.shape[1], keys.shape[1]
    keys = keys.repeat_interleave(heads // kv_heads, 1)
    values = values.repeat_interleave(heads // kv_heads, 1)
    scores = query @ keys.mT * SCALE
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    q = torch.arange(start, start + query.shape[2])[:, None]
    k = torch.arange(keys.shape[2])[None]
    seen = (k <= q) & ((k > q - window) if window else torch.ones_like(k, dtype=torch.bool))
    scores = scores.masked_fill(~seen, -math.inf)
    if sinks is not None:
        extra = sinks.view(1, -1, 1, 1).expand(1, heads, query.shape[2], 1).to(scores.dtype)
        return torch.cat([scores, extra], -1).softmax(-1)[..., :-1] @ values
    return scores.softmax(-1) @ values
