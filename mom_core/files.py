"""This program's folder in the user's cache, and writing files so that none is ever half there."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

_NAME = "mom-chat"


def cache_folder() -> Path:
    """This program's folder in the user's cache, which may not exist yet."""
    try:
        import platformdirs
    except ImportError:
        # The engine also runs where only torch and transformers are installed.
        base = os.environ.get("XDG_CACHE_HOME")
        return (Path(base) if base else Path.home() / ".cache") / _NAME
    return platformdirs.user_cache_path(_NAME, appauthor=False)


def write_aside(path: Path, data: bytes) -> None:
    """Writes a small private file (mode 0600) atomically.

    Args:
        path: the file; an existing one is replaced.
        data: its new contents.

    Raises:
        OSError: the file cannot be written.
    """
    aside = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Flushes a folder, so that new and renamed files in it survive a crash."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
