"""What the host's memory is, what of it is free, and what this process holds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

_CGROUPS = Path("/proc/self/cgroup")
# By version of the kernel's interface: where the tree is mounted, and the name of a limit.
_CGROUP_V2 = (Path("/sys/fs/cgroup"), "memory.max")
_CGROUP_V1 = (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes")
_STATUS = Path("/proc/self/status")


def host_total_bytes() -> int:
    """Memory of the machine, or of the container when that is less."""
    return min([int(psutil.virtual_memory().total), *_cgroup_limits()])


def _cgroup_limits() -> Iterator[int]:
    """Limits of the control groups that this process is in, from its own up to the root.

    A group's limit holds for all groups inside it. Inside a container the path that the kernel
    tells may begin outside of what is mounted: groups that are not there are passed over.

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
                # Without a limit it is "max", or in version 1 a number beyond all memory.
                if text.isdigit():
                    yield int(text)


def host_free_bytes(total_bytes: int, resident_bytes: int) -> int:
    """What the machine, or the container, could still give.

    Args:
        total_bytes: see `host_total_bytes`.
        resident_bytes: this process's resident memory.
    """
    return min(int(psutil.virtual_memory().available), max(0, total_bytes - resident_bytes))


def own_bytes() -> int:
    """Resident memory of this process that is no file's: what only its end gives back.

    Pages of mapped files are left out, for the system takes them away when it needs memory.
    """
    return status_bytes("RssAnon") or int(psutil.Process().memory_info().rss)


def status_bytes(field: str) -> int:
    """A size that the Linux kernel reports for this process; 0 where it does not."""
    try:
        status = _STATUS.read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def free_disk_bytes(folder: Path) -> int:
    """What the disk has free where this folder is, or will be made."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
