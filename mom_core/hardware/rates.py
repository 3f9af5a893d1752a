"""How fast this machine is at the parts of a run, measured by a short probe."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mom_core.attention import Segment, segment_attention
from mom_core.kv.scratch import default_scratch_folder
from mom_core.native import kernels
from mom_core.native.linear import bf16_linear

_ROWS = 512
# E and F if a model's own are not given.
_WIDTHS = (1024, 2048)
# Reads and writes per token in a layer, other than products and attention, of E, H x D and F
# numbers: two norms in fp32 and two residuals; rotation; activation and gate.
_HIDDEN_PASSES = 24
_QUERY_PASSES = 12
_MLP_PASSES = 5
# Larger than any cache, as a model's weights are.
_ONE_ROW_BYTES = 64 << 20
_KEYS = 4096
# Bounds on the runs of each kind of work.
_LEAST_RUNS, _MOST_RUNS, _PROBE_SECONDS = 3, 50, 0.1
_COPIED_BYTES = 32 << 20
_WRITTEN_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Rates in one dtype on one device.

    Args:
        linear_flops_per_second: operations per second in products of many rows.
        attention_flops_per_second: operations per second in attention of a chunk to earlier keys.
        one_row_bytes_per_second: bytes of weights and KV read per second for a single token.
        host_row_bytes_per_second: the same for the CPU, which attends to KV on the host.
        elementwise_bytes_per_second: bytes read and written per second by elementwise operations;
            see `passed_bytes`.
        operation_seconds: duration of any small operation.
        layer_call_seconds: duration of a call of a tiny layer: its modules and small operations.
        bus_bytes_per_second: bytes copied per second between host and device, in one direction.
        disk_bytes_per_second: bytes written per second to a file of the disk tier; reading is
            taken to be as fast.
    """

    linear_flops_per_second: float
    attention_flops_per_second: float
    one_row_bytes_per_second: float
    host_row_bytes_per_second: float
    elementwise_bytes_per_second: float
    operation_seconds: float
    layer_call_seconds: float
    bus_bytes_per_second: float
    disk_bytes_per_second: float


def passed_bytes(rows: int, *, hidden: int, query: int, mlp: int, dtype_bytes: int) -> int:
    """Bytes read and written in one layer by everything except products and attention.

    Args:
        rows: number of tokens.
        hidden: hidden size, E.
        query: width of the queries, H x D.
        mlp: width of the MLP, F.
        dtype_bytes: bytes per number.
    """
    elements = _HIDDEN_PASSES * hidden + _QUERY_PASSES * query + _MLP_PASSES * mlp
    return rows * elements * dtype_bytes


def measure_rates(
    dtype: torch.dtype,
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    hidden: int = _WIDTHS[0],
    mlp: int = _WIDTHS[1],
    device: torch.device | None = None,
    rows: int = _ROWS,
    keys: int = _KEYS,
) -> Rates:
    """Times each kind of work, a few tenths of a second in all.

    Args:
        dtype: dtype of weights and KV.
        heads: attention heads, H.
        kv_heads: key-value heads, G.
        head_dim: numbers per head, D.
        hidden: hidden size, E; rates depend on the width of products.
        mlp: width of the MLP, F.
        device: where to measure; None for the CPU.
        rows: rows of the large products, and queries of attention.
        keys: keys of attention; the last of them belong to the queries.
    """
    where = device or torch.device("cpu")
    width = dtype.itemsize
    probe = _Probe(dtype, where)
    chunk = probe.ones(rows, hidden)
    matrices = max(2, _ONE_ROW_BYTES // (hidden * mlp * width))
    weights = [probe.ones(mlp, hidden) for _ in range(matrices)]
    query = probe.ones(1, heads, rows, head_dim)
    segment = probe.ones(1, kv_heads, keys, head_dim)
    held, tiny = [Segment(0, segment, segment)], probe.ones(1)
    layer = _Between(probe, rows, heads, head_dim, hidden, mlp)
    small = _SmallLayer(probe)

    def one_row() -> None:
        for weight in weights:
            probe.product(chunk[:1], weight)

    row_bytes_per_second = matrices * hidden * mlp * width / _best_seconds(one_row, where)
    host_row = row_bytes_per_second
    if where.type != "cpu":
        host_row = _row_bytes_per_second_of_the_cpu(dtype)
    # Called as prefill calls it, so that the same kernel is timed.
    attention = _best_seconds(
        lambda: segment_attention(query, keys - rows, held, scale=head_dim**-0.5), where
    )
    passed = passed_bytes(rows, hidden=hidden, query=heads * head_dim, mlp=mlp, dtype_bytes=width)
    linear_seconds = _best_seconds(lambda: probe.product(chunk, weights[0]), where)
    return Rates(
        linear_flops_per_second=2 * rows * hidden * mlp / linear_seconds,
        attention_flops_per_second=4 * heads * head_dim * rows * (keys - rows / 2) / attention,
        one_row_bytes_per_second=row_bytes_per_second,
        host_row_bytes_per_second=host_row,
        elementwise_bytes_per_second=passed / _best_seconds(layer.run, where),
        operation_seconds=_best_seconds(lambda: tiny + tiny, where),
        layer_call_seconds=_best_seconds(small.run, where),
        bus_bytes_per_second=_bus_bytes_per_second(where),
        disk_bytes_per_second=_disk_bytes_per_second(default_scratch_folder()),
    )


class _Probe:
    """Tensors and products on one device, made as a model makes them."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype = dtype
        self.device = device
        self._kernels = kernels() if device.type == "cpu" else None

    def ones(self, *shape: int) -> Tensor:
        return torch.ones(shape, dtype=self.dtype, device=self.device)

    def product(self, rows: Tensor, weight: Tensor) -> Tensor:
        """`rows @ weight.T`, computed the way the engine does."""
        if self.device.type == "cpu" and self.dtype is torch.bfloat16:
            return bf16_linear(rows, weight, None)
        if self._kernels is not None and self._kernels.takes_linear(rows, weight, None):
            return self._kernels.linear_rows(rows, weight, None)
        return torch.nn.functional.linear(rows, weight)


class _Between:
    """A layer's work other than products and attention: norms, rotation, activation, residuals."""

    def __init__(
        self, probe: _Probe, rows: int, heads: int, head_dim: int, hidden: int, mlp: int
    ) -> None:
        self._hidden, self._scale = probe.ones(1, rows, hidden), probe.ones(hidden)
        self._query = probe.ones(1, heads, rows, head_dim)
        self._angles = probe.ones(rows, head_dim)
        self._gate = probe.ones(1, rows, mlp)

    def run(self) -> None:
        hidden, half = self._hidden, self._query.shape[-1] // 2
        for _ in range(2):
            wide = hidden.float()
            wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
            hidden = hidden + self._scale * wide.to(hidden.dtype)
        turned = torch.cat((-self._query[..., half:], self._query[..., :half]), dim=-1)
        _ = self._query * self._angles + turned * self._angles
        _ = torch.nn.functional.silu(self._gate) * self._gate


class _SmallLayer:
    """A layer so small that only the calls take time."""

    _WIDTH = 16

    def __init__(self, probe: _Probe) -> None:
        width = self._WIDTH
        self._between = _Between(probe, 2, 2, width // 2, width, width)
        self._linears = [
            torch.nn.Linear(width, width, bias=False, dtype=probe.dtype, device=probe.device)
            for _ in range(7)
        ]
        self._rows, self._query = probe.ones(1, 2, width), probe.ones(1, 2, 2, width // 2)
        self._held = [Segment(0, self._query, self._query)]

    def run(self) -> None:
        with torch.no_grad():
            for linear in self._linears:
                linear(self._rows).view(1, 2, 2, -1).transpose(1, 2)
            self._between.run()
            segment_attention(self._query, 0, self._held, scale=1.0)


def _row_bytes_per_second_of_the_cpu(dtype: torch.dtype) -> float:
    probe, width = _Probe(dtype, torch.device("cpu")), _WIDTHS[1]
    weights = [probe.ones(width, width) for _ in range(_ONE_ROW_BYTES // (width * width * 2))]
    row = probe.ones(1, width)

    def read() -> None:
        for weight in weights:
            probe.product(row, weight)

    return sum(weight.nbytes for weight in weights) / _best_seconds(read, probe.device)


def _bus_bytes_per_second(device: torch.device) -> float:
    """The rate of copies from the host, page-locked like the memory of the host tier."""
    host = torch.ones(_COPIED_BYTES, dtype=torch.uint8, pin_memory=device.type == "cuda")
    there = torch.empty_like(host, device=device, pin_memory=False)
    return _COPIED_BYTES / _best_seconds(lambda: there.copy_(host, non_blocking=True), device)


def _disk_bytes_per_second(folder: Path) -> float:
    """The rate of writing a file through to the disk; infinite if the folder is not writable.

    Reading is no slower, and a disk that cannot be written to holds nothing to read.
    """
    block = bytes(_WRITTEN_BYTES)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            started = time.perf_counter()
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
            return _WRITTEN_BYTES / (time.perf_counter() - started)
    except OSError:
        return math.inf


def _best_seconds(work: Callable[[], object], device: torch.device) -> float:
    """The shortest of several runs, because other programs can only make a run slower."""

    def once() -> float:
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    once()
    runs = [once() for _ in range(_LEAST_RUNS)]
    while sum(runs) < _PROBE_SECONDS and len(runs) < _MOST_RUNS:
        runs.append(once())
    return min(runs)
