"""Numbers with their nouns, for sentences about documents."""

from __future__ import annotations

import math


def count(number: int, noun: str) -> str:
    """ "1 page", "2,415 pages", "3 entries"."""
    return f"{number:,} {plural(noun, number)}"


def size_words(size_bytes: int) -> str:
    """ "7 KB", "12.3 MB"; rounded up, so that no file seems empty."""
    if size_bytes < 1024**2:
        return f"{math.ceil(size_bytes / 1024):,} KB"
    return f"{size_bytes / 1024**2:,.1f} MB"


def plural(noun: str, number: int) -> str:
    """The noun in the form that the number asks for: "page", "pages", "entries"."""
    if number == 1:
        return noun
    return noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
