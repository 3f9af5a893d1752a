"""Names that distinguish documents."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import count
from pathlib import PurePosixPath


def free_name(name: str, taken: Collection[str]) -> str:
    """The name itself, or "notes (2).html" where "notes.html" is taken: what a file is may be
    recognised by the end of its name."""
    if name not in taken:
        return name
    suffix = PurePosixPath(name).suffix
    stem = name.removesuffix(suffix)
    return next(new for number in count(2) if (new := f"{stem} ({number}){suffix}") not in taken)


def told_apart(names: Iterable[str]) -> list[str]:
    """The names in their order, each of them once."""
    given: dict[str, None] = {}
    for name in names:
        given[free_name(name, given)] = None
    return list(given)
