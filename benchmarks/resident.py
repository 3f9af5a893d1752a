"""Resident memory of this process, as Linux counts it. Nothing but the standard library."""

from __future__ import annotations

import contextlib
from pathlib import Path


def resident_bytes() -> int:
    """Now."""
    return _status_bytes("VmRSS")


def resident_peak_bytes() -> int:
    """The highest since `reset_resident_peak`."""
    return _status_bytes("VmHWM")


def reset_resident_peak() -> None:
    """The peak counts from now on, where the system allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")
