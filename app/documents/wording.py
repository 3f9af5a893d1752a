"""Numbers with their nouns, as sentences about documents need them."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """ "1 page", "2,415 pages", "3 entries"."""
    return f"{number:,} {plural(noun, number)}"


def plural(noun: str, number: int) -> str:
    """The noun as it follows the number."""
    if number == 1:
        return noun
    return noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
