"""The tree of a codebase, as it stands before its files."""

from __future__ import annotations

from collections.abc import Iterable

# More lines than this would say little and cost much: then only folders, with counts.
_LINES_MAX = 2_000


def tree_header(paths: Iterable[str]) -> str:
    """Folders and files, indented.

    Args:
        paths: the files' paths, with "/" between their parts.
    """
    root: dict[str, dict] = {}  # type: ignore[type-arg]
    for path in paths:
        folder = root
        for part in path.split("/"):
            folder = folder.setdefault(part, {})
    lines = list(_lines(root, 0, True))
    if len(lines) > _LINES_MAX:
        lines = list(_lines(root, 0, False))[:_LINES_MAX]
    return "Files:\n" + "\n".join(lines)


def _lines(folder: dict, depth: int, with_files: bool) -> Iterable[str]:  # type: ignore[type-arg]
    for name, inside in folder.items():
        if inside:
            size = "" if with_files else f" ({_files(inside):,} files)"
            yield f"{'  ' * depth}{name}/{size}"
            yield from _lines(inside, depth + 1, with_files)
        elif with_files:
            yield f"{'  ' * depth}{name}"


def _files(folder: dict) -> int:  # type: ignore[type-arg]
    return sum(_files(inside) if inside else 1 for inside in folder.values())
