"""How fast this machine is at the things a run consists of, by a short probe.

Products of many rows, attention of a chunk over earlier keys, the norms and other passes between
them, the call of a layer (reading); products of one row, which are bound by memory (answering);
copies to the device, and files. Tables of a machine's figures would be wrong for
the next: of two CPUs of one kind one multiplies bf16 forty times faster than the other.

What was measured is kept in the user's cache for this machine, torch and number of threads. What
runs really took corrects the forecasts for their model: `correct` records it, `correction` gives
the factor.

Source: ours.
"""

from __future__ import annotations

import contextlib
import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from filelock import FileLock

from mom_core.files import cache_folder
from mom_core.hardware.rates import Rates, measure_rates

Work = Literal["prefill", "decode"]
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
    hidden: int,
    mlp: int,
    device: torch.device | None = None,
) -> Rates:
    """`measure_rates` on this machine, or what it gave before."""
    key = f"{_machine_key(device)} {dtype} {heads}/{kv_heads}/{head_dim}/{hidden}/{mlp}"
    known, is_busy = _read().get("rates", {}).get(key), _is_busy()
    # What was measured while others computed stands only until the machine is free.
    if isinstance(known, dict) and (is_busy or not known.pop("was_busy", False)):
        known.pop("was_busy", None)
        # Written by another version of this program, it may have other fields.
        with contextlib.suppress(TypeError):
            return Rates(**known)
    rates = measure_rates(
        dtype,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        hidden=hidden,
        mlp=mlp,
        device=device,
    )
    _write("rates", key, {**asdict(rates), "was_busy": is_busy})
    return rates


def _is_busy() -> bool:
    """Whether more wants to run on this machine than it has cores."""
    return psutil.getloadavg()[0] > (psutil.cpu_count() or 1)


def correct(
    model: str,
    phase: Work,
    *,
    forecast_seconds: float,
    real_seconds: float,
    device: torch.device | None = None,
) -> None:
    """Tells what a run really took, for later forecasts of the same model on this machine.

    Args:
        model: distinguishes it from others; see `ModelShape.signature`.
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
    key = f"{_machine_key(device)} {model} {phase}"
    before = _read().get("corrections", {}).get(key)
    if isinstance(before, float):
        # Factors multiply, so they are averaged by their logarithms.
        factor = before ** (1 - _NEWEST_SHARE) * factor**_NEWEST_SHARE
    _write("corrections", key, factor)


def correction(model: str, phase: Work, device: torch.device | None = None) -> float:
    """What a forecast in seconds is to be multiplied by; 1 before the first run."""
    factor = _read().get("corrections", {}).get(f"{_machine_key(device)} {model} {phase}", 1.0)
    return float(factor) if isinstance(factor, float | int) else 1.0


def _machine_key(device: torch.device | None) -> str:
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
