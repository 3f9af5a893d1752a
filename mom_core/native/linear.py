"""Linear layers with bf16 weights on the CPU, by the fastest method on this machine.

Our kernel handles a few rows, because it reads the weights faster than torch does. torch handles
many rows, except on CPUs that multiply bf16 slowly: with AVX2 alone, bf16 is forty times slower
than fp32. bf16 weights still pay off there. They take half the memory, and answering, which is
limited by reading them, is twice as fast. So for a chunk we widen them to fp32, a few megabytes at
a time. That runs at fp32 speed, with the same products and sums as bf16 with fp32 sums.

Source: ours.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mom_core.native import kernels
from mom_core.native.library import FEW_ROWS

# Widened weights held at once.
_PART_BYTES = 16 << 20
_PROBE_ROWS, _PROBE_WIDTH = 64, 1024
# Switch methods only for a clear gain.
_CLEARLY = 1.5


def bf16_linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`rows @ weight.T + bias` on the CPU; sums are fp32.

    Args:
        rows: inputs `[..., I]`, bf16.
        weight: weights `[O, I]`, bf16.
        bias: biases `[O]`, bf16, or None.

    Returns:
        Outputs `[..., O]`, bf16.
    """
    ours = kernels()
    if ours is not None and ours.takes_linear(rows, weight, bias):
        return ours.linear_rows(rows, weight, bias)
    # With a few rows, most time goes into reading the weights, and widening would double it.
    if rows.numel() > FEW_ROWS * rows.shape[-1] and is_wide_faster():
        return wide_linear(rows, weight, bias)
    return nn.functional.linear(rows, weight, bias)


def wide_linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`rows @ weight.T + bias` with weights widened to fp32, multiplied and summed in fp32.

    Args:
        rows: inputs `[..., I]`, bf16.
        weight: weights `[O, I]`, bf16.
        bias: biases `[O]`, bf16, or None.

    Returns:
        Outputs `[..., O]`, bf16.
    """
    outputs, inputs = weight.shape
    wide = rows.float()
    result = torch.empty((*rows.shape[:-1], outputs), dtype=rows.dtype)
    part = max(1, _PART_BYTES // (4 * inputs))
    for start in range(0, outputs, part):
        some = slice(start, start + part)
        part_bias = None if bias is None else bias[some].float()
        result[..., some] = nn.functional.linear(wide, weight[some].float(), part_bias)
    return result


@functools.cache
def is_wide_faster() -> bool:
    """Whether this CPU multiplies bf16 matrices clearly faster after widening them to fp32."""
    rows = torch.ones(_PROBE_ROWS, _PROBE_WIDTH, dtype=torch.bfloat16)
    weight = torch.ones(_PROBE_WIDTH, _PROBE_WIDTH, dtype=torch.bfloat16)

    def seconds(linear: Callable[[Tensor, Tensor, None], Tensor]) -> float:
        best = float("inf")
        for _ in range(3):
            started = time.perf_counter()
            linear(rows, weight, None)
            best = min(best, time.perf_counter() - started)
        return best

    return _CLEARLY * seconds(wide_linear) < seconds(nn.functional.linear)
