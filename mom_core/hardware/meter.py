"""The memory meter: what this process and this machine use right now, by tier and by kind.

A reading takes well under a millisecond, allocates nothing on the device, and may be made from
any thread. Peaks are counted since `reset_peak`: on Linux the kernel's own high-water mark of the
process where it can be reset, else the highest of the readings; on CUDA torch's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, get_args

import psutil

from mom_core.config import TierName
from mom_core.events import MemorySample
from mom_core.hardware.gpu import find_card
from mom_core.hardware.host import host_free_bytes, host_total_bytes, status_bytes

_KINDS = ("weights", "kv", "working")
_CLEAR_REFS = Path("/proc/self/clear_refs")


class MemoryByKind(Protocol):
    """What the meter asks an engine: bytes it holds now, by kind and tier."""

    @property
    def device_type(self) -> str: ...

    @property
    def weights_device_bytes(self) -> int: ...

    @property
    def weights_host_bytes(self) -> int: ...

    @property
    def weights_disk_bytes(self) -> int: ...

    @property
    def kv_device_bytes(self) -> int: ...

    @property
    def kv_host_bytes(self) -> int: ...

    @property
    def kv_disk_bytes(self) -> int: ...

    @property
    def working_device_bytes(self) -> int: ...

    @property
    def working_host_bytes(self) -> int: ...

    @property
    def working_disk_bytes(self) -> int: ...

    @property
    def hidden_bytes(self) -> Mapping[TierName, int]: ...


class Meter:
    """Reads memory for one engine, or for the bare process while none is loaded.

    Args:
        engine: whose weights, KV and working buffers are told apart; may be set later.
    """

    def __init__(self, engine: MemoryByKind | None = None) -> None:
        self.engine = engine
        self._process = psutil.Process()
        self._host_total_bytes = host_total_bytes()
        self._host_peak_bytes = 0
        self._card = find_card()

    def reset_peak(self) -> None:
        """Peaks count from now on."""
        self._host_peak_bytes = 0
        # Not Linux, or not allowed: then the highest reading stands in for the kernel's mark.
        with contextlib.suppress(OSError):
            _CLEAR_REFS.write_text("5")
        if self._card is not None:
            self._card.reset_peak()

    def sample(self) -> MemorySample:
        """One reading."""
        rss = self._process.memory_info().rss
        self._host_peak_bytes = max(self._host_peak_bytes, rss, status_bytes("VmHWM"))
        card = self._card
        held = self._held_bytes()
        hidden = {**(self.engine.hidden_bytes if self.engine else {})}
        if card is not None and self.engine and self.engine.device_type == card.device_type:
            # Torch's count includes what the kernels take for themselves.
            rest = card.allocated_bytes() - held["weights", "device"] - held["kv", "device"]
            held["working", "device"] = max(held["working", "device"], rest)
        else:
            # Without a GPU the device is the host: everything lies in this process's memory.
            for kind in _KINDS:
                held[kind, "host"] += held[kind, "device"]
                held[kind, "device"] = 0
            hidden["host"] = hidden.get("host", 0) + hidden.pop("device", 0)
        return MemorySample(
            time_seconds=time.monotonic(),
            device_name=card.name if card else None,
            device_used_bytes=card.used_bytes() if card else None,
            device_total_bytes=card.total_bytes if card else None,
            device_peak_bytes=card.peak_bytes() if card else None,
            device_reserved_bytes=card.reserved_bytes() if card else None,
            device_weights_bytes=held["weights", "device"],
            device_kv_bytes=held["kv", "device"],
            device_activations_bytes=held["working", "device"],
            host_used_bytes=rss,
            host_available_bytes=host_free_bytes(self._host_total_bytes, rss),
            host_total_bytes=self._host_total_bytes,
            host_peak_bytes=self._host_peak_bytes,
            host_weights_bytes=held["weights", "host"],
            host_kv_bytes=held["kv", "host"],
            host_activations_bytes=held["working", "host"],
            disk_weights_bytes=held["weights", "disk"],
            disk_kv_bytes=held["kv", "disk"],
            disk_activations_bytes=held["working", "disk"],
            # The engine may have gone on between two of its answers.
            device_hidden_bytes=min(hidden.get("device", 0), held["working", "device"]),
            host_hidden_bytes=min(hidden.get("host", 0), held["working", "host"]),
        )

    def _held_bytes(self) -> dict[tuple[str, TierName], int]:
        """What the engine holds, by kind and tier."""
        return {
            (kind, tier): getattr(self.engine, f"{kind}_{tier}_bytes") if self.engine else 0
            for kind in _KINDS
            for tier in get_args(TierName)
        }
