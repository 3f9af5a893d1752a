"""The folder of this program in the user's cache: models, compiled kernels, scratch files."""

from __future__ import annotations

import os
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
