"""What readers yield while they work, and its form on the pipe from the parsing process.

A reader goes through *units* (pages, files, sheets) counted from 0. It yields `Begun` before it
touches a unit and `Done` when all of it was given, so that whoever started it knows which unit
hung or crashed, and can continue with the next.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

from app.documents.budget import Budget
from app.documents.document import (
    NO_DOUBT,
    Chapter,
    DocumentKind,
    Health,
    LeftOut,
    Section,
)
from app.documents.limits import DEFAULT_LIMITS, Limits
from app.documents.options import DEFAULT_OPTIONS, ReadOptions


@dataclass(frozen=True, slots=True)
class Opened:
    """The first part: what it is and how many units it has.

    Args:
        kind: the document's kind.
        units: how many there are.
        can_be_split: whether several processes may share the units.
    """

    kind: DocumentKind
    units: int
    can_be_split: bool = False


@dataclass(frozen=True, slots=True)
class Begun:
    """Unit `unit`, called `label`, is being read."""

    unit: int
    label: str


@dataclass(frozen=True, slots=True)
class More:
    """More text of the section given last."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Done:
    """All of `unit` was given."""

    unit: int


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence worth showing."""

    sentence: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The document cannot be read; a sentence says why. `is_locked`: a password would help."""

    sentence: str
    is_locked: bool = False


Part: TypeAlias = Opened | Begun | Section | More | Done | LeftOut | Chapter | Note | Refused

# Exit status of the parsing process where memory was not enough.
OUT_OF_MEMORY = 3

_KINDS = {
    kind.__name__: kind
    for kind in (Opened, Begun, Section, More, Done, LeftOut, Chapter, Note, Refused)
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What a reader is asked to do.

    Args:
        path: the file or folder.
        name: shown to people.
        options: the person's choices.
        limits: what it may take.
        start: first unit to read.
        end: unit to stop before; None reads to the end.
        skip: units that hung or crashed before.
        is_upload: `path` is a folder of numbered files beside the list of their names.
        nesting: how many archives lie around it.
        budget: that of the outermost archive around it; None outside archives.
    """

    path: Path
    name: str
    options: ReadOptions = DEFAULT_OPTIONS
    limits: Limits = DEFAULT_LIMITS
    start: int = 0
    end: int | None = None
    skip: frozenset[int] = frozenset()
    is_upload: bool = False
    nesting: int = 0
    budget: Budget | None = field(default=None, repr=False, compare=False)

    def units(self, total: int) -> Iterator[int]:
        """The units to read, of `total`."""
        end = total if self.end is None else min(self.end, total)
        return (unit for unit in range(self.start, end) if unit not in self.skip)


def to_json(part: Part) -> str:
    """One line. JSON, not pickle: a process that parses hostile files is not to be believed."""
    values = {name.name: getattr(part, name.name) for name in fields(part)}
    if isinstance(part, Section):
        # Most sections are files and pages that nothing is wrong with.
        values["health"] = {} if part.health is NO_DOUBT else asdict(part.health)
    return json.dumps([type(part).__name__, values], ensure_ascii=True)


def from_json(line: bytes) -> Part:
    """The part that `to_json` wrote.

    Raises:
        ValueError: it is not one.
    """
    try:
        name, values = json.loads(line)
        if name == "Section":
            values["health"] = Health(**values["health"])
        part: Part = _KINDS[name](**values)
    except (KeyError, TypeError, AttributeError) as fault:
        raise ValueError(f"not a part of a document: {fault}") from fault
    return part


def job_to_json(job: Job) -> str:
    """The job for the parsing process."""
    assert job.budget is None, "only the parsing process unpacks"
    values: dict[str, Any] = asdict(job)
    del values["budget"]
    return json.dumps(values | {"path": str(job.path), "skip": sorted(job.skip)})


def job_from_json(line: str) -> Job:
    """The job that `job_to_json` wrote."""
    values = json.loads(line)
    lists = ("include", "exclude", "put_back", "page_extractors")
    options = values["options"] | {name: tuple(values["options"][name]) for name in lists}
    return Job(
        **values
        | {
            "path": Path(values["path"]),
            "options": ReadOptions(**options),
            "limits": Limits(**values["limits"]),
            "skip": frozenset(values["skip"]),
        }
    )
