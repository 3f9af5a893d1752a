"""The only place where a name from outside becomes a path on this machine.

A test forbids the modules that talk with the outside to make paths themselves.
"""

from __future__ import annotations

import re
from pathlib import Path

from mom_core.errors import InvalidSetting

_HARMLESS = re.compile(r"[0-9a-z]{1,64}")


def stored(folder: Path, *names: str) -> Path:
    """Where something lies in a folder of ours.

    Args:
        folder: ours.
        names: numbers and ids; never what a person calls a file.

    Raises:
        InvalidSetting: a name that could lead elsewhere, or mean something to the system.
    """
    for name in names:
        if not _HARMLESS.fullmatch(name):
            raise InvalidSetting(
                f"{name[:80]!r} is not the number of an upload. Reload the page and try again."
            )
    return folder.joinpath(*names)


def on_this_machine(words: str) -> Path:
    """The path that a person typed, to be opened where it lies.

    Raises:
        InvalidSetting: it is no full path, or there is nothing.
    """
    if "\0" in words:
        raise InvalidSetting("A path cannot hold the character 0. Type it again.")
    path = Path(words.strip())
    try:
        path = path.expanduser()
    except RuntimeError as fault:
        raise InvalidSetting(f"There is no such home folder: {words[:80]!r}.") from fault
    if not path.is_absolute():
        raise InvalidSetting(f"{str(path)[:80]!r} is no full path, such as /home/me/a.pdf.")
    try:
        exists = path.exists()
    except OSError:
        # Longer than the system allows.
        exists = False
    if not exists:
        raise InvalidSetting(f"There is nothing at {str(path)[:200]}. Check the path.")
    return path
