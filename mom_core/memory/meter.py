"""The memory meter: what this process and this machine use right now, by tier and by kind.

A reading takes well under a millisecond, allocates nothing on the device, and may be made from
any thread. Peaks are counted since `reset_peak`: on Linux the kernel's own high-water mark of the
process where it can be reset, else the highest of the readings; on CUDA torch's.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Protocol

import psutil

from mom_core.events import MemorySample
from mom_core.memory.host import host_free_bytes, host_total_bytes, status_bytes

_CLEAR_REFS = Path("/proc/self/clear_refs")


class MemoryByKind(Protocol):
    """What the meter asks an engine: bytes it holds now, by tier and kind."""

    @property
    def device_type(self) -> str: ...

    @property
    def weights_bytes(self) -> int: ...

    @property
    def kv_device_bytes(self) -> int: ...

    @property
    def kv_host_bytes(self) -> int: ...

    @property
    def working_device_bytes(self) -> int: ...

    @property
    def working_host_bytes(self) -> int: ...


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
        self._card = _Card.find()

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
        engine, card = self.engine, self._card
        is_on_card = engine is not None and engine.device_type == "cuda" and card is not None
        weights = engine.weights_bytes if engine else 0
        kv_device = engine.kv_device_bytes if engine else 0
        kv_host = engine.kv_host_bytes if engine else 0
        working_device = engine.working_device_bytes if engine else 0
        working_host = engine.working_host_bytes if engine else 0
        if card is not None and is_on_card:
            # Torch's count includes what the kernels take for themselves.
            working_device = max(working_device, card.allocated_bytes() - weights - kv_device)
        else:
            # Without a GPU the device is the host: everything lies in this process's memory.
            kv_host, kv_device = kv_host + kv_device, 0
            working_host, working_device = working_host + working_device, 0
        return MemorySample(
            time_seconds=time.monotonic(),
            device_name=card.name if card else None,
            device_used_bytes=card.used_bytes() if card else None,
            device_total_bytes=card.total_bytes if card else None,
            device_peak_bytes=card.peak_bytes() if card else None,
            device_weights_bytes=weights if is_on_card else 0,
            device_kv_bytes=kv_device,
            device_activations_bytes=working_device,
            host_used_bytes=rss,
            host_available_bytes=host_free_bytes(self._host_total_bytes, rss),
            host_total_bytes=self._host_total_bytes,
            host_peak_bytes=self._host_peak_bytes,
            host_weights_bytes=0 if is_on_card else weights,
            host_kv_bytes=kv_host,
            host_activations_bytes=working_host,
        )


class _Card:
    """The first CUDA device: the whole card through NVML, this process's share through torch."""

    def __init__(self, handle: object, name: str, total_bytes: int) -> None:
        self._handle = handle
        self.name = name
        self.total_bytes = total_bytes

    @classmethod
    def find(cls) -> _Card | None:
        """The card, or None where there is none that torch can use."""
        import torch

        if not torch.cuda.is_available():
            return None
        import pynvml

        pynvml.nvmlInit()
        index = torch.cuda.current_device()
        uuid = f"GPU-{torch.cuda.get_device_properties(index).uuid}"
        try:
            # By uuid: CUDA_VISIBLE_DEVICES may have renumbered the cards.
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        except pynvml.NVMLError:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        name = torch.cuda.get_device_name(index)
        return cls(handle, name, int(pynvml.nvmlDeviceGetMemoryInfo(handle).total))

    def used_bytes(self) -> int:
        """Used on the whole card, by every program."""
        import pynvml

        return int(pynvml.nvmlDeviceGetMemoryInfo(self._handle).used)

    def allocated_bytes(self) -> int:
        """Bytes of this process's tensors."""
        import torch

        return torch.cuda.memory_allocated()

    def peak_bytes(self) -> int:
        """Highest bytes of this process's tensors."""
        import torch

        return torch.cuda.max_memory_allocated()

    def reset_peak(self) -> None:
        """The peak counts from now on."""
        import torch

        torch.cuda.reset_peak_memory_stats()
