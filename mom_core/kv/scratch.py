"""A process's folder of private files on disk, which a later start removes after a crash.

Each user of a scratch folder gets a subfolder of its own (mode 0700), with a lock file held for
as long as the subfolder is in use. The system releases the lock however the process ends, even
by SIGKILL. A subfolder whose lock is free therefore has no owner, and the next start removes it.

Source: ours.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import weakref
from pathlib import Path

import filelock

from mom_core.errors import InvalidSetting
from mom_core.files import cache_folder

_PREFIX = "mom-chat-run-"
_LOCK_NAME = "lock"
_SUFFIX = ".mapped"


def default_scratch_folder() -> Path:
    """The default folder for the files of the disk tier."""
    return cache_folder() / "scratch"


class ScratchFolder:
    """A private subfolder, removed when closed, garbage-collected, or when Python exits.

    Args:
        root: the folder above it; created (mode 0700) if missing.

    Raises:
        InvalidSetting: `root` is not writable.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files = 0
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _guarded(root):
                _sweep(root)
                self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
                lock = filelock.FileLock(self.path / _LOCK_NAME, mode=0o600, thread_local=False)
                lock.acquire()
        except OSError as error:
            raise not_writable(root, error) from error
        self._end = weakref.finalize(self, _end, self.path, lock, os.getpid())

    def new_file(self) -> Path:
        """The path of a file that does not exist yet."""
        self._files += 1
        return self.path / f"{self._files}{_SUFFIX}"

    def close(self) -> None:
        """Removes the subfolder and its files. Mappings of the files stay readable."""
        self._end()


def sweep(root: Path) -> None:
    """Removes subfolders of processes that have ended; those of running ones stay.

    Args:
        root: the scratch folder.
    """
    with contextlib.suppress(OSError):
        if any(root.glob(f"{_PREFIX}*")):
            with _guarded(root):
                _sweep(root)


def not_writable(root: Path, error: OSError) -> InvalidSetting:
    """The error for a scratch folder that is not writable."""
    return InvalidSetting(
        f"The scratch folder {root} is not writable: {error.strerror or error}. Allow writing "
        "there, or choose another folder with scratch_folder (--scratch-folder)."
    )


def _guarded(root: Path) -> filelock.BaseFileLock:
    """A lock for creating and removing subfolders, so that nobody sees one not yet locked."""
    return filelock.FileLock(root / f".{_LOCK_NAME}", mode=0o600)


def _sweep(root: Path) -> None:
    for folder in root.glob(f"{_PREFIX}*"):
        lock_path = folder / _LOCK_NAME
        # Delete only what is certainly ours.
        if folder.is_symlink() or not lock_path.is_file():
            continue
        lock = filelock.FileLock(lock_path, mode=0o600)
        try:
            lock.acquire(blocking=False)
        except (filelock.Timeout, OSError):
            continue
        _remove(folder, lock)


def _end(folder: Path, lock: filelock.BaseFileLock, owner: int) -> None:
    # A forked child inherits this finalizer, but does not own the folder.
    if os.getpid() == owner:
        _remove(folder, lock)


def _remove(folder: Path, lock: filelock.BaseFileLock) -> None:
    for path in folder.glob(f"*{_SUFFIX}"):
        path.unlink(missing_ok=True)
    lock.release()
    (folder / _LOCK_NAME).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
