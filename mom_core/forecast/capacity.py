"""What a run may still take of device, host and disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch

from mom_core.config import TierName
from mom_core.forecast.peak_bytes import MemoryForecast
from mom_core.hardware import host
from mom_core.kv.mapped import KEPT_FREE_BYTES
from mom_core.kv.scratch import default_scratch_folder


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """Bytes that may still be taken; below 0 where more is held than is allowed.

    Args:
        device_bytes: GPU memory; None without a GPU, where the device is the host.
        host_bytes: CPU memory.
    """

    device_bytes: int | None
    host_bytes: int

    def without(self, taken_bytes: int, tier: TierName) -> Room:
        """What is left when so much more is taken on a tier."""
        if tier == "device" and self.device_bytes is not None:
            left = self.device_bytes - taken_bytes
            return Room(device_bytes=left, host_bytes=self.host_bytes)
        if tier == "disk":
            return self
        return Room(device_bytes=self.device_bytes, host_bytes=self.host_bytes - taken_bytes)


# What an allocator, the GPU's context and other programs may take beside a forecast's bytes.
DEVICE_SHARE = 0.95
HOST_SHARE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What may be taken.

    Args:
        device_bytes: GPU memory; None without a GPU, where the device is the host.
        host_bytes: CPU memory.
        disk_bytes: where the files of the disk tier lie.
        taken_bytes: CPU memory that this program takes beside what a forecast counts, where
            a person's cap has to hold it, too; `host_bytes` is what it leaves.
    """

    device_bytes: int | None
    host_bytes: int
    disk_bytes: int
    taken_bytes: int = 0

    @classmethod
    def here(
        cls,
        *,
        device_bytes: int | None = None,
        host_bytes: int | None = None,
        scratch_folder: Path | None = None,
        is_empty: bool = False,
    ) -> Machine:
        """This machine with nothing of a model on it.

        Args:
            device_bytes: bytes of a GPU, in place of what this machine's own has free.
            host_bytes: bytes of CPU memory, in place of what is free.
            scratch_folder: folder for the disk tier's files; None for the default one.
            is_empty: count all memory, whatever takes it now, in place of what is free.
        """
        if device_bytes is None and torch.cuda.is_available():
            free_bytes, total_bytes = torch.cuda.mem_get_info()
            device_bytes = int(total_bytes if is_empty else free_bytes)
        if host_bytes is None:
            host_bytes = host.host_total_bytes()
            if not is_empty:
                resident_bytes = psutil.Process().memory_info().rss
                host_bytes = host.host_free_bytes(host_bytes, resident_bytes)
        return cls(
            device_bytes=device_bytes,
            host_bytes=host_bytes,
            disk_bytes=host.free_disk_bytes(scratch_folder or default_scratch_folder()),
        )

    @property
    def device_type(self) -> Literal["cuda", "cpu"]:
        """What the device is."""
        return "cpu" if self.device_bytes is None else "cuda"

    def has_room_for(self, forecast: MemoryForecast) -> bool:
        """Whether a run fits, with a margin."""
        return not self.missing(forecast)

    def missing(self, forecast: MemoryForecast) -> dict[TierName, int]:
        """Bytes that a run needs beyond what there is, by tier, where it needs more."""
        needed: dict[TierName, int] = {
            "device": forecast.device_peak_bytes,
            "host": forecast.host_peak_bytes,
            "disk": forecast.disk_bytes,
        }
        room: dict[TierName, float] = {
            "device": DEVICE_SHARE * (self.device_bytes or 0),
            "host": HOST_SHARE * self.host_bytes,
            "disk": max(0, self.disk_bytes - KEPT_FREE_BYTES),
        }
        if self.device_bytes is None:
            # One memory: what the device holds, the host does.
            needed["host"], needed["device"] = forecast.one_memory_peak_bytes, 0
        return {
            tier: round(needed[tier] - room[tier]) for tier in needed if needed[tier] > room[tier]
        }
