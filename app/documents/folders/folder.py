"""A folder of this machine, or an uploaded one, as entries of a collection."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from app.documents.folders.selection import Entry, is_put_back, readable_path, skipped_folder
from app.documents.parts import Job
from mom_core.errors import DocumentError

MANIFEST = "manifest.json"
# Stands for all files of a folder that nobody has looked at.
FOLDER_NOT_SENT = "…"
# Of a folder that is left out: one of packages may hold 100,000 files.
_LOOKED_AT_FILES = 2_000


def folder_entries(job: Job) -> Iterator[Entry]:
    """Every file below a folder.

    Raises:
        DocumentError: far too many files.
    """
    found = 0
    root = job.path
    for folder, folder_names, file_names in os.walk(root):
        here = Path(folder)
        for folder_name in list(folder_names):
            path = here / folder_name
            relative = readable_path(path.relative_to(root).as_posix())
            if path.is_symlink():
                folder_names.remove(folder_name)
                yield Entry(relative, 0, _nothing, refused="link to another folder")
            elif skipped_folder(folder_name) is not None and not any(
                is_put_back(f"{relative}/", job.options) or wanted.startswith(f"{relative}/")
                for wanted in job.options.put_back
            ):
                folder_names.remove(folder_name)
                yield from _look_into(path, relative)
        for file_name in file_names:
            found += 1
            if found > job.limits.files:
                raise too_many_files(job, "more than " + f"{job.limits.files:,}")
            yield _entry(here / file_name, (here / file_name).relative_to(root).as_posix())


def _look_into(folder: Path, relative: str) -> Iterator[Entry]:
    """Files of a folder that is left out, for what it would cost to put it back."""
    found = 0
    for here, _, names in os.walk(folder):
        for name in names:
            path = Path(here) / name
            entry = _entry(path, f"{relative}/{path.relative_to(folder).as_posix()}")
            if entry.refused is not None:
                continue
            if found == _LOOKED_AT_FILES:
                yield Entry(f"{relative}/{FOLDER_NOT_SENT}", 0, _nothing)
                return
            found += 1
            yield entry


def uploaded_entries(job: Job) -> Iterator[Entry]:
    """The files of an upload, which lie under numbers beside the list of their names.

    Raises:
        DocumentError: far too many files.
    """
    names: list[str] = json.loads((job.path / MANIFEST).read_text("utf-8"))
    if len(names) > job.limits.files:
        raise too_many_files(job, f"{len(names):,}")
    for number, name in enumerate(names):
        folder, _, last = name.rpartition("/")
        reason = skipped_folder(folder.rpartition("/")[2])
        if last == FOLDER_NOT_SENT and reason is not None:
            yield Entry(f"{readable_path(folder)}/", 0, _nothing, refused=f"{reason}, not uploaded")
        else:
            yield _entry(job.path / str(number), name)


def too_many_files(job: Job, found: str) -> DocumentError:
    """The refusal of a folder or archive with too many files."""
    return DocumentError(
        f"{job.name} holds {found} files; at most {job.limits.files:,} are read. "
        f"Choose the part of it that you want to ask about, or {job.limits.raising('files')}."
    )


def _entry(path: Path, relative: str) -> Entry:
    shown = readable_path(relative)
    refused = None
    if path.is_symlink():
        refused = "link to another file"
    elif not path.is_file():
        # A pipe or device might never end.
        refused = "not a regular file"
    elif not os.access(path, os.R_OK):
        refused = "may not be read"
    if refused is not None:
        return Entry(shown, 0, _nothing, refused=refused)
    return Entry(shown, path.stat().st_size, functools.partial(_open, path), path)


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


def _nothing() -> BinaryIO:
    raise AssertionError("an entry that is refused is never opened")
