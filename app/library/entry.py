"""One prepared document in the library: what it is made of and how it is named on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mom_core.snapshot.manifest import (
    MANIFEST,
    Manifest,
)

PARTIAL = ".partial-"
ENTRY_FILE = "entry.json"
NAME_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """A document of an entry.

    Args:
        name: of the file.
        digest: SHA-256 of its text, hexadecimal.
    """

    name: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One prepared document, or several that were read together.

    Args:
        id: its folder's name without what marks it as unfinished.
        folder: with its files.
        name: shown to people; no two are alike.
        model: that read it.
        tokens: it has.
        size_bytes: on the disk.
        created_at: ISO 8601, UTC.
        used_at: the same, of the last use by the clock there was then.
        used_number: grows with every use in the library.
        documents: what was read.
        fraction: of its layers and the tokens of the one that ran; 1.0 when it is whole.
        problem: why it cannot be used, as a sentence; "" if it can.
        manifest: None if it cannot be read.
    """

    id: str
    folder: Path
    name: str
    model: str = ""
    tokens: int = 0
    size_bytes: int = 0
    created_at: str = ""
    used_at: str = ""
    used_number: int = 0
    documents: tuple[DocumentInfo, ...] = ()
    fraction: float = 1.0
    problem: str = ""
    manifest: Manifest | None = field(default=None, repr=False)

    @property
    def is_whole(self) -> bool:
        """Whether the reading was over."""
        return not self.folder.name.startswith(PARTIAL)


@dataclass(frozen=True, slots=True)
class Quota:
    """What the library may take, and takes.

    Args:
        limit_bytes: at most; 0 keeps nothing.
        used_bytes: of all entries.
    """

    limit_bytes: int
    used_bytes: int


@dataclass(frozen=True, slots=True)
class Match:
    """An entry that begins like a prompt.

    Args:
        entry: found.
        common_tokens: at the beginning of both.
    """

    entry: Entry
    common_tokens: int

    @property
    def worth(self) -> float:
        """Tokens whose reading it saves; those of an unfinished reading count in part."""
        return self.common_tokens * self.entry.fraction


def is_entry(folder: Path) -> bool:
    """Whether a folder holds an entry."""
    return (folder / MANIFEST).exists() or (folder / ENTRY_FILE).exists()


def file_bytes(path: Path) -> int | None:
    """Bytes of a file; None where there is none (any more)."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def entry_id(folder: Path) -> str:
    """The name of an entry's folder without the mark of an unfinished one."""
    return folder.name.removeprefix(PARTIAL)


def small_file(path: Path) -> dict[str, Any]:
    """A small file's content; what is not there or damaged says nothing."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def whole_number(value: object) -> int:
    """The value if it is a whole number from 0, else 0."""
    return value if isinstance(value, int) and value >= 0 else 0


def documents_of(value: object) -> tuple[DocumentInfo, ...]:
    """The documents that an entry's description names."""
    if not isinstance(value, list):
        return ()
    return tuple(
        DocumentInfo(str(item.get("name", "")), str(item.get("digest", "")))
        for item in value
        if isinstance(item, dict)
    )
