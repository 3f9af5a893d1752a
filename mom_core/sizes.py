"""Sizes as people read and write them: GiB, MiB or KiB in sentences, bytes inside the program."""

from __future__ import annotations

import re

from mom_core.errors import InvalidSetting


def size_text(size_bytes: float) -> str:
    """A size as text, for example "17.2 GiB", "880 MiB", "3.4 MiB" or "29 KiB"."""
    if abs(size_bytes) >= 2**30:
        return f"{size_bytes / 2**30:,.1f} GiB"
    if 0 < abs(size_bytes) < 2**20 / 10:
        return f"{size_bytes / 2**10:,.0f} KiB"
    size = size_bytes / 2**20
    return f"{size:,.0f} MiB" if abs(size) >= 10 or not size else f"{size:,.1f} MiB"


_UNITS = {
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)},
    # Without a unit, a number counts GiB.
    "": 1024**3,
}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([a-z]*)")


def parse_size(text: str) -> int:
    """The bytes that a text stands for.

    Args:
        text: a number with a unit, for example "24GiB"; a bare number counts GiB.

    Raises:
        InvalidSetting: the text is not a size, or the size is 0.
    """
    match = _SIZE.fullmatch(text.strip().lower())
    factor = _UNITS.get(match[2]) if match else None
    size_bytes = int(float(match[1]) * factor) if match and factor else 0
    if not size_bytes:
        raise InvalidSetting(
            f"{text!r} is not a size of memory. Write a number above 0 with a unit, for example "
            "24GiB, 24GB or 512MiB. Without a unit, the number counts GiB."
        )
    return size_bytes


def parse_quota(text: str) -> int:
    """The bytes that a text stands for; unlike `parse_size`, it accepts "0".

    Args:
        text: "0", or a size as for `parse_size`.

    Raises:
        InvalidSetting: the text is not a size.
    """
    return 0 if text.strip() == "0" else parse_size(text)
