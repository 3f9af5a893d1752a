"""The memory meter: what this process and this machine use right now, by tier and by kind.

A reading takes well under a millisecond, allocates nothing on the device, and may be taken from
any thread. Peaks count from `reset_peak`. For the host, the peak is the kernel's high-water mark if
it can be reset (on Linux), and otherwise the highest reading. On CUDA, it is torch's.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Protocol

import psutil
import torch

from mom_core.events import MemorySample
from mom_core.hardware.gpu import find_card
from mom_core.hardware.host import host_free_bytes, host_total_bytes, status_bytes
from mom_core.held_bytes import HELD_KINDS, HeldBytes

_CLEAR_REFS = Path("/proc/self/clear_refs")


class HoldsMemory(Protocol):
    """What the meter needs from an engine."""

    @property
    def device(self) -> torch.device:
        """Where the model computes."""

    @property
    def held_bytes(self) -> HeldBytes:
        """Bytes held now, by tier and kind."""


class Meter:
    """Reads the memory in use, by tier and by kind.

    Args:
        engine: engine whose weights, KV and working buffers are listed; None lists the process as
            a whole. It may be set later.
    """

    def __init__(self, engine: HoldsMemory | None = None) -> None:
        self.engine = engine
        self._process = psutil.Process()
        self._host_total_bytes = host_total_bytes()
        self._host_peak_bytes = 0
        self._card = find_card()

    def reset_peak(self) -> None:
        """Restarts the peaks from now."""
        self._host_peak_bytes = 0
        # Not on Linux, or not allowed: the highest reading then serves as the peak.
        with contextlib.suppress(OSError):
            _CLEAR_REFS.write_text("5")
        if self._card is not None:
            self._card.reset_peak()

    def sample(self) -> MemorySample:
        """Takes one reading."""
        rss = self._process.memory_info().rss
        self._host_peak_bytes = max(self._host_peak_bytes, rss, status_bytes("VmHWM"))
        card, engine = self._card, self.engine
        held = HeldBytes() if engine is None else HeldBytes(engine.held_bytes)
        if card is not None and engine is not None and engine.device.type == card.device_type:
            # Torch's count includes what kernels allocate for themselves.
            rest = card.allocated_bytes() - held["device", "weights"] - held["device", "kv"]
            held["device", "buffers"] += max(0, rest - held.working("device"))
        else:
            # Without a GPU the device is the host: everything is in this process's memory.
            for kind in HELD_KINDS:
                held["host", kind] += held.pop(("device", kind), 0)
        return MemorySample(
            time_seconds=time.monotonic(),
            device_name=card.name if card else None,
            device_used_bytes=card.used_bytes() if card else None,
            device_total_bytes=card.total_bytes if card else None,
            device_peak_bytes=card.peak_bytes() if card else None,
            device_reserved_bytes=card.reserved_bytes() if card else None,
            device_weights_bytes=held["device", "weights"],
            device_kv_bytes=held["device", "kv"],
            device_activations_bytes=held.working("device"),
            host_used_bytes=rss,
            host_available_bytes=host_free_bytes(self._host_total_bytes, rss),
            host_total_bytes=self._host_total_bytes,
            host_peak_bytes=self._host_peak_bytes,
            host_weights_bytes=held["host", "weights"],
            host_kv_bytes=held["host", "kv"],
            host_activations_bytes=held.working("host"),
            disk_weights_bytes=held["disk", "weights"],
            disk_kv_bytes=held["disk", "kv"],
            disk_activations_bytes=held.working("disk"),
            device_hidden_bytes=held["device", "hidden"],
            host_hidden_bytes=held["host", "hidden"],
        )
