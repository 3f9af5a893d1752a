"""The folder of a process's private files on disk: made, guarded, emptied, swept after a crash.

Each user of a scratch folder gets a subfolder of its own (mode 0700) with a lock file that is
held for as long as it lives. The system lets go of the lock however the process ends, SIGKILL
included; so a subfolder whose lock is free has no owner, and the next start removes it.

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
    """Where files that stand in for memory lie, unless another folder is given."""
    return cache_folder() / "scratch"


class ScratchFolder:
    """A private subfolder of `root`, gone when closed, forgotten, or at the interpreter's exit.

    Args:
        root: made (mode 0700) if it is not there.

    Raises:
        InvalidSetting: nothing can be written there.
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
        """Removes the subfolder and all files in it; what is mapped from them stays readable."""
        self._end()


def sweep(root: Path) -> None:
    """Removes what ended processes left behind; files of running ones are not touched."""
    with contextlib.suppress(OSError):
        if any(root.glob(f"{_PREFIX}*")):
            with _guarded(root):
                _sweep(root)


def not_writable(root: Path, error: OSError) -> InvalidSetting:
    """The sentence for a scratch folder that cannot be used."""
    return InvalidSetting(
        f"Nothing can be written in the scratch folder {root}: {error.strerror or error}. Give "
        "write access there, or choose another with scratch_folder (--scratch-folder)."
    )


def _guarded(root: Path) -> filelock.BaseFileLock:
    """Held while subfolders appear and vanish: nobody may see one that is not locked yet."""
    return filelock.FileLock(root / f".{_LOCK_NAME}", mode=0o600)


def _sweep(root: Path) -> None:
    for folder in root.glob(f"{_PREFIX}*"):
        lock_path = folder / _LOCK_NAME
        # Nothing that is not surely ours is deleted.
        if folder.is_symlink() or not lock_path.is_file():
            continue
        lock = filelock.FileLock(lock_path, mode=0o600)
        try:
            lock.acquire(blocking=False)
        except (filelock.Timeout, OSError):
            continue
        _remove(folder, lock)


def _end(folder: Path, lock: filelock.BaseFileLock, owner: int) -> None:
    # A forked child inherits this finalizer, but not the folder.
    if os.getpid() == owner:
        _remove(folder, lock)


def _remove(folder: Path, lock: filelock.BaseFileLock) -> None:
    for path in folder.glob(f"*{_SUFFIX}"):
        path.unlink(missing_ok=True)
    lock.release()
    (folder / _LOCK_NAME).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
