"""How fast this machine is: measured once by a short probe, and then corrected by real runs.

Fixed tables would not do: of two CPUs of the same kind, one multiplies bf16 forty times faster
than the other. Measured rates are stored in the user's cache, for this machine, torch version and
number of threads. The time that real runs took corrects later forecasts for the same model:
`correct` records it, and `correction` returns the factor.

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
# The weight of a new run against all earlier ones.
_NEWEST_SHARE = 0.5
# A run beyond these factors was disturbed, and is ignored.
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
    """This machine's rates: the stored ones, or new ones from `measure_rates`.

    Args:
        dtype: dtype of weights and KV.
        heads: attention heads, H.
        kv_heads: key-value heads, G.
        head_dim: numbers per head, D.
        hidden: hidden size, E.
        mlp: width of the MLP, F.
        device: where to measure; None for the CPU.
    """
    key = f"{_machine_key(device)} {dtype} {heads}/{kv_heads}/{head_dim}/{hidden}/{mlp}"
    known, is_busy = _read().get("rates", {}).get(key), _is_busy()
    # Rates measured while the machine was busy are used only until it is free.
    if isinstance(known, dict) and (is_busy or not known.pop("was_busy", False)):
        known.pop("was_busy", None)
        # Another version of this program may have stored other fields.
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
    """Whether more tasks want to run on this machine than it has cores."""
    return psutil.getloadavg()[0] > (psutil.cpu_count() or 1)


def correct(
    model: str,
    phase: Work,
    *,
    forecast_seconds: float,
    real_seconds: float,
    device: torch.device | None = None,
) -> None:
    """Records how long a run really took, for later forecasts of the same model on this machine.

    Args:
        model: what identifies the model; see `ModelShape.signature`.
        phase: the phase that was timed.
        forecast_seconds: forecast from the rates alone, without a correction.
        real_seconds: measured duration.
        device: where the run was; None for the CPU.
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
        # Factors multiply, so their logarithms are averaged.
        factor = before ** (1 - _NEWEST_SHARE) * factor**_NEWEST_SHARE
    _write("corrections", key, factor)


def correction(model: str, phase: Work, device: torch.device | None = None) -> float:
    """The factor that corrects a forecast in seconds; 1 before the first run.

    Args:
        model: what identifies the model; see `ModelShape.signature`.
        phase: the phase that is forecast.
        device: where the run will be; None for the CPU.
    """
    factor = _read().get("corrections", {}).get(f"{_machine_key(device)} {model} {phase}", 1.0)
    return float(factor) if isinstance(factor, float | int) else 1.0


def _machine_key(device: torch.device | None) -> str:
    """Everything that a measured rate depends on and that may change between two starts."""
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
    """Stores a value. If the folder is not writable, it is measured again next time."""
    file = _file()
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            known = _read()
            known.setdefault(part, {})[key] = value
            staged = file.with_suffix(".new")
            staged.write_text(json.dumps(known, indent=1))
            staged.replace(file)
