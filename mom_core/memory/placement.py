"""Where "auto" puts things: on the device while they fit, else on the host, else on the disk."""

from __future__ import annotations

from dataclasses import dataclass

from mom_core.config import TierName

# Share of the free memory that "auto" fills.
_MARGIN = 0.85


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """Bytes that may still be taken.

    Args:
        device_bytes: of the GPU; None without one, where the device is the host.
        host_bytes: of the host.
    """

    device_bytes: int | None
    host_bytes: int

    def without(self, taken_bytes: int, tier: TierName) -> Room:
        """What is left when so much more is taken on a tier."""
        if tier == "device" and self.device_bytes is not None:
            left = max(0, self.device_bytes - taken_bytes)
            return Room(device_bytes=left, host_bytes=self.host_bytes)
        if tier == "disk":
            return self
        return Room(
            device_bytes=self.device_bytes, host_bytes=max(0, self.host_bytes - taken_bytes)
        )


def fits(wanted_bytes: int, free_bytes: int) -> bool:
    """Whether so much may be put where so much is free."""
    return wanted_bytes <= free_bytes * _MARGIN


def place(wanted_bytes: int, room: Room) -> TierName:
    """The first tier that has room, with a margin; the disk says itself when it has none."""
    if room.device_bytes is None:
        return "device" if wanted_bytes <= room.host_bytes * _MARGIN else "disk"
    if fits(wanted_bytes, room.device_bytes):
        return "device"
    return "host" if wanted_bytes <= room.host_bytes * _MARGIN else "disk"
