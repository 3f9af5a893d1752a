"""What a run may still take of device, host and disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from mom_core.config import TierName


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """Bytes that may still be taken; below 0 where more is held than is allowed.

    Args:
        device_bytes: of the GPU; None without one, where the device is the host.
        host_bytes: of the host.
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


def free_disk_bytes(folder: Path) -> int:
    """What the disk has free where this folder is, or will be made."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
