"""The folder of this program in the user's cache: models, compiled kernels, scratch files."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

_NAME = "mom-chat"


def cache_folder() -> Path:
    """Where it lies; it may not exist yet."""
    try:
        import platformdirs
    except ImportError:
        # The engine also runs where there is only torch and transformers.
        base = os.environ.get("XDG_CACHE_HOME")
        return (Path(base) if base else Path.home() / ".cache") / _NAME
    return platformdirs.user_cache_path(_NAME, appauthor=False)


def write_aside(path: Path, data: bytes) -> None:
    """Writes a small private file so that it is never half there.

    Raises:
        OSError: it cannot be written.
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
    """Makes new and renamed names in a folder last."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
