"""Numbers with their nouns, as sentences about documents need them."""

from __future__ import annotations

import math


def count(number: int, noun: str) -> str:
    """ "1 page", "2,415 pages", "3 entries"."""
    return f"{number:,} {plural(noun, number)}"


def size_words(size_bytes: int) -> str:
    """ "7 KB", "12.3 MB"; rounded up, as nothing is no size."""
    if size_bytes < 1024**2:
        return f"{math.ceil(size_bytes / 1024):,} KB"
    return f"{size_bytes / 1024**2:,.1f} MB"


def plural(noun: str, number: int) -> str:
    """The noun as it follows the number."""
    if number == 1:
        return noun
    return noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
