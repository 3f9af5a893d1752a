"""What the host's memory is, what of it is free, and what this process holds."""

from __future__ import annotations

from pathlib import Path

import psutil

_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_STATUS = Path("/proc/self/status")


def host_total_bytes() -> int:
    """Memory of the machine, or of the container when that is less."""
    total = int(psutil.virtual_memory().total)
    for path in _CGROUP_LIMITS:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            return min(total, int(text))
    return total


def host_free_bytes(total_bytes: int, resident_bytes: int) -> int:
    """What the machine, or the container, could still give.

    Args:
        total_bytes: see `host_total_bytes`.
        resident_bytes: of this process.
    """
    return min(int(psutil.virtual_memory().available), max(0, total_bytes - resident_bytes))


def own_bytes() -> int:
    """Resident memory of this process that is no file's: what only its end gives back.

    Pages of mapped files are left out, for the system takes them away when it needs memory.
    """
    return status_bytes("RssAnon") or int(psutil.Process().memory_info().rss)


def status_bytes(field: str) -> int:
    """A size that the Linux kernel tells of this process; 0 where it does not."""
    try:
        status = _STATUS.read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0
