"""Bytes by tier and by what they are for: the form in which forecast and simulation agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

_Kind = TypeVar("_Kind", bound=str)


@dataclass(frozen=True, slots=True, kw_only=True)
class TierBytes(Generic[_Kind]):
    """What is held on each tier.

    Args:
        device: bytes by kind.
        host: the same of the host.
        disk: the same of the disk.
    """

    device: dict[_Kind, int]
    host: dict[_Kind, int]
    disk: dict[_Kind, int]

    @property
    def device_bytes(self) -> int:
        """On the device in all."""
        return sum(self.device.values())

    @property
    def host_bytes(self) -> int:
        """On the host in all."""
        return sum(self.host.values())

    @property
    def disk_bytes(self) -> int:
        """On the disk in all."""
        return sum(self.disk.values())
