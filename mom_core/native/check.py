"""Compares the kernels with torch before they are used."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mom_core.native.library import DTYPES, Kernels


def agrees_with_torch(built: Kernels) -> bool:
    """Whether linear layers and attention agree with torch.

    Every start checks this once, because a wrong kernel is worse than a slow one.

    Args:
        built: the compiled kernels.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    for dtype in DTYPES:
        rows, weight, bias = (t.to(dtype) for t in (draw(1, 7, 77), draw(19, 77), draw(19)))
        truth = torch.nn.functional.linear(rows.double(), weight.double(), bias.double())
        linear = built.linear_rows(rows, weight, bias).double()
        if not torch.allclose(linear, truth, rtol=2**-7, atol=1e-2):
            return False
        query, keys, values = draw(1, 2, 5, 32), draw(1, 2, 700, 32), draw(1, 2, 700, 32)
        keys, values = keys.to(dtype), values.to(dtype)
        scores = query.double() @ keys.double().mT * 0.2
        output, lse = built.attend_rows(query, keys, values, 0.2)
        if not torch.allclose(output.double(), scores.softmax(-1) @ values.double(), atol=1e-5):
            return False
        if not torch.allclose(lse.double(), scores.logsumexp(-1), atol=1e-5):
            return False
    return not built.has_chunk_attention or _chunk_agrees_with_torch(built, draw)


def _chunk_agrees_with_torch(built: Kernels, draw: Callable[..., Tensor]) -> bool:
    query, keys, values = (
        t.to(torch.bfloat16) for t in (draw(1, 4, 70, 48), draw(1, 2, 300, 48), draw(1, 2, 300, 48))
    )
    offset, window = 230, 199
    output, lse = built.attend_chunk(
        query,
        keys,
        values,
        offset=offset,
        scale=0.2,
        window=window,
        softcap=None,
        dtype=torch.float32,
    )
    distance = torch.arange(70).unsqueeze(1) + offset - torch.arange(300)
    grouped = query.double().view(1, 2, 2, 70, 48)
    scores = (grouped @ keys.double().unsqueeze(2).mT * 0.2).view(1, 4, 70, 300)
    scores.masked_fill_((distance < 0) | (distance >= window), -math.inf)
    truth = scores.softmax(-1).view(1, 2, 2, 70, 300) @ values.double().unsqueeze(2)
    return torch.allclose(output.double(), truth.view(1, 4, 70, 48), atol=1e-2) and torch.allclose(
        lse.double(), scores.logsumexp(-1), atol=1e-4
    )
