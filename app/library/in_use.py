"""A lock that says which entries are in use, by this process or another."""

from __future__ import annotations

import uuid
from pathlib import Path

import filelock


class InUse:
    """Says that this process uses an entry.

    Args:
        folder: of the lock files.
        entry_id: whose.
    """

    def __init__(self, folder: Path, entry_id: str) -> None:
        self._path = folder / f"{entry_id}.{uuid.uuid4().hex}.lock"
        self._lock = filelock.FileLock(self._path, mode=0o600, thread_local=False)
        self._lock.acquire()

    def release(self) -> None:
        """It does not any more."""
        self._lock.release()
        self._path.unlink(missing_ok=True)


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock; one that nobody holds is removed."""
    lock = filelock.FileLock(path, mode=0o600)
    try:
        lock.acquire(blocking=False)
    except (filelock.Timeout, OSError):
        return True
    lock.release()
    path.unlink(missing_ok=True)
    return False
