"""How fast this machine is at the three things a run consists of, by a short probe.

Products of many rows (reading), attention of a chunk over earlier keys (reading), and products of
one row, which are bound by memory (answering). Tables of a machine's figures would be wrong for
the next: of two CPUs of one kind one multiplies bf16 forty times faster than the other.

What was measured is kept in the user's cache for this machine, torch and number of threads. What
runs really took corrects the forecasts for their model: `correct` is told, `correction` tells.

Source: ours.
"""

from __future__ import annotations

import contextlib
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from filelock import FileLock
from torch import Tensor

from mom_core.attention import Segment, segment_attention
from mom_core.cache_folder import cache_folder
from mom_core.native import kernels

_ROWS = 512
_WIDTHS = (1024, 2048)
# Together they are larger than a cache, as a model's weights are.
_ONE_ROW_MATRICES = 16
_KEYS = 4096
# Of each kind of work.
_LEAST_RUNS, _MOST_RUNS, _PROBE_SECONDS = 3, 50, 0.1
# What a layer adds to its products: norms, rotation, activation, residuals.
_ELEMENTS = 1 << 21


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Speeds in one dtype on one device.

    Args:
        linear_flops_per_second: of products of many rows.
        attention_flops_per_second: of a chunk over earlier keys.
        one_row_bytes_per_second: at which weights and KV are read for a single token.
        elementwise_bytes_per_second: read and written by operations that only pass over memory.
        operation_seconds: that any small operation takes.
    """

    linear_flops_per_second: float
    attention_flops_per_second: float
    one_row_bytes_per_second: float
    elementwise_bytes_per_second: float
    operation_seconds: float


Phase = Literal["prefill", "decode"]
# How much a new run counts against those before it.
_NEWEST_SHARE = 0.5
# A run that was this far off was disturbed, and says nothing.
_BELIEVABLE = (0.1, 10.0)


def rates_here(
    dtype: torch.dtype,
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    device: torch.device | None = None,
) -> Rates:
    """`measure_rates` on this machine, or what it gave before."""
    key = f"{_machine(device)} {dtype} {heads}/{kv_heads}/{head_dim}"
    known, is_busy = _read().get("rates", {}).get(key), _is_busy()
    # What was measured while others computed stands only until the machine is free.
    if isinstance(known, dict) and (is_busy or not known.pop("was_busy", False)):
        known.pop("was_busy", None)
        # Written by another version of this program, it may have other fields.
        with contextlib.suppress(TypeError):
            return Rates(**known)
    rates = measure_rates(dtype, heads=heads, kv_heads=kv_heads, head_dim=head_dim, device=device)
    _write("rates", key, {**asdict(rates), "was_busy": is_busy})
    return rates


def _is_busy() -> bool:
    """Whether more wants to run on this machine than it has cores."""
    return psutil.getloadavg()[0] > (psutil.cpu_count() or 1)


def correct(
    model: str,
    phase: Phase,
    *,
    forecast_seconds: float,
    real_seconds: float,
    device: torch.device | None = None,
) -> None:
    """Tells what a run really took, for later forecasts of the same model on this machine.

    Args:
        model: what tells it from others; see `ModelShape.signature`.
        phase: what was timed.
        forecast_seconds: by the rates alone, without a correction.
        real_seconds: what it took.
        device: where; the CPU if None.
    """
    if forecast_seconds <= 0:
        return
    low, high = _BELIEVABLE
    factor = real_seconds / forecast_seconds
    if not low <= factor <= high:
        return
    key = f"{_machine(device)} {model} {phase}"
    before = _read().get("corrections", {}).get(key)
    if isinstance(before, float):
        # Factors multiply, so they are averaged by their logarithms.
        factor = before ** (1 - _NEWEST_SHARE) * factor**_NEWEST_SHARE
    _write("corrections", key, factor)


def correction(model: str, phase: Phase, device: torch.device | None = None) -> float:
    """What a forecast in seconds is to be multiplied by; 1 before the first run."""
    factor = _read().get("corrections", {}).get(f"{_machine(device)} {model} {phase}", 1.0)
    return float(factor) if isinstance(factor, float | int) else 1.0


def _machine(device: torch.device | None) -> str:
    """Everything that a measured speed depends on and that may change between two starts."""
    if device is not None and device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} torch {torch.__version__}"
    threads, capability = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    return f"{platform.node()} {capability} {threads} threads torch {torch.__version__}"


def _file() -> Path:
    return cache_folder() / "rates.json"


def _read() -> dict[str, Any]:
    try:
        found = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(part: str, key: str, value: object) -> None:
    """Keeps a figure; where nothing can be written it is measured again next time."""
    file = _file()
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            known = _read()
            known.setdefault(part, {})[key] = value
            staged = file.with_suffix(".new")
            staged.write_text(json.dumps(known, indent=1))
            staged.replace(file)


def measure_rates(
    dtype: torch.dtype,
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    device: torch.device | None = None,
    rows: int = _ROWS,
    keys: int = _KEYS,
) -> Rates:
    """Times each kind of work, some tens to hundreds of milliseconds in all.

    Args:
        dtype: of weights and KV.
        heads: H, for attention.
        kv_heads: G.
        head_dim: D.
        device: where; the CPU if None.
        rows: of a product of many rows, and queries of attention.
        keys: held, those of the queries the last of them.
    """
    where = device or torch.device("cpu")

    def ones(*shape: int) -> Tensor:
        return torch.ones(shape, dtype=dtype, device=where)

    width_in, width_out = _WIDTHS
    chunk = ones(rows, width_in)
    weights = [ones(width_out, width_in) for _ in range(_ONE_ROW_MATRICES)]
    query, segment = ones(1, heads, rows, head_dim), ones(1, kv_heads, keys, head_dim)
    flat, product, tiny = ones(_ELEMENTS), ones(_ELEMENTS), ones(1)

    ours = kernels() if where.type == "cpu" else None

    def one_row() -> None:
        for weight in weights:
            if ours is not None and ours.takes_linear(chunk[:1], weight, None):
                ours.linear_rows(chunk[:1], weight, None)
            else:
                torch.nn.functional.linear(chunk[:1], weight)

    linear = _best_seconds(lambda: torch.nn.functional.linear(chunk, weights[0]), where)
    held = [Segment(0, segment, segment)]
    # As prefill calls it, so that the same kernel is timed.
    attention = _best_seconds(
        lambda: segment_attention(query, keys - rows, held, scale=head_dim**-0.5), where
    )
    row = _best_seconds(one_row, where)
    passing = _best_seconds(lambda: torch.mul(flat, flat, out=product), where)
    return Rates(
        linear_flops_per_second=2 * rows * width_in * width_out / linear,
        attention_flops_per_second=4 * heads * head_dim * rows * (keys - rows / 2) / attention,
        one_row_bytes_per_second=width_in * width_out * _ONE_ROW_MATRICES * dtype.itemsize / row,
        elementwise_bytes_per_second=3 * _ELEMENTS * dtype.itemsize / passing,
        operation_seconds=_best_seconds(lambda: tiny + tiny, where),
    )


def _best_seconds(work: Callable[[], object], device: torch.device) -> float:
    """The best of several runs: others on the machine only ever make one slower."""

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
