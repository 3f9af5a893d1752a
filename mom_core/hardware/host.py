"""The host's memory and disk: how much there is, how much is free, and what this process holds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

_CGROUPS = Path("/proc/self/cgroup")
# For each version of the kernel's interface: its mount point, and its file for a memory limit.
_CGROUP_V2 = (Path("/sys/fs/cgroup"), "memory.max")
_CGROUP_V1 = (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes")
_STATUS = Path("/proc/self/status")


def host_total_bytes() -> int:
    """Bytes of memory in the machine, or in the container if its limit is lower."""
    return min([int(psutil.virtual_memory().total), *_cgroup_limits()])


def _cgroup_limits() -> Iterator[int]:
    """Memory limits, in bytes, of this process's control groups, from its own up to the root.

    A group's limit applies to all groups inside it. In a container, the path that the kernel gives
    may begin outside of what is mounted, so groups that cannot be found are skipped.

    Source: cgroups(7); Linux's admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
    """
    paths = {_CGROUP_V2: {"/"}, _CGROUP_V1: {"/"}}
    try:
        lines = _CGROUPS.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            paths[_CGROUP_V2].add(path)
        elif "memory" in controllers.split(","):
            paths[_CGROUP_V1].add(path)
    for (mount, name), groups in paths.items():
        for group in groups:
            inner = PurePosixPath(group.lstrip("/"))
            for part in (inner, *inner.parents):
                try:
                    text = (mount / part / name).read_text().strip()
                except OSError:
                    continue
                # "max" means no limit; version 1 has a number beyond all memory instead.
                if text.isdigit():
                    yield int(text)


def host_free_bytes(total_bytes: int, resident_bytes: int) -> int:
    """Bytes that the machine, or the container, can still provide.

    Args:
        total_bytes: the result of `host_total_bytes`.
        resident_bytes: resident memory of this process.
    """
    return min(int(psutil.virtual_memory().available), max(0, total_bytes - resident_bytes))


def own_bytes() -> int:
    """Bytes of resident memory that belong to no file, so that only this process can free them.

    Pages of mapped files do not count, because the system can evict them when it needs memory.
    """
    return status_bytes("RssAnon") or int(psutil.Process().memory_info().rss)


def status_bytes(field: str) -> int:
    """A size in bytes that Linux reports about this process; 0 if it reports none.

    Args:
        field: name of the size in `/proc/self/status`, for example "VmHWM".
    """
    try:
        status = _STATUS.read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def free_disk_bytes(folder: Path) -> int:
    """Free bytes on the disk that holds a folder, or will hold it once it exists."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
