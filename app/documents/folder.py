"""A folder of source files or texts as one document."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from app.documents.document import Document
from app.documents.selection import Entry, select, skipped_folder
from mom_core.errors import DocumentError

FILES_MAX = 50_000


def read_folder(root: Path, name: str) -> Document:
    """Reads all text files below a folder, one section per file.

    Raises:
        DocumentError: there is no text file in it, or far too many files.
    """
    return read_entries(_entries(root, name), name)


def read_entries(entries: Iterable[Entry], name: str) -> Document:
    """Reads files that lie elsewhere than in a folder, such as uploaded ones.

    Raises:
        DocumentError: there is no text file among them, or far too many files.
    """
    sections, left_out = select(entries)
    if not sections:
        raise DocumentError(
            f"{name} holds no text file to read ({len(left_out):,} left out as binary, ignored, "
            "generated or empty). Choose a folder with source code or texts."
        )
    return Document(name, "code", sections, left_out)


def _entries(root: Path, name: str) -> Iterator[Entry]:
    found = 0
    for folder, folder_names, file_names in os.walk(root):
        here = Path(folder)
        for folder_name in list(folder_names):
            path = here / folder_name
            if skipped_folder(folder_name) is not None or path.is_symlink():
                # Not entered, only named: a folder of packages may hold 100,000 files.
                folder_names.remove(folder_name)
                relative = path.relative_to(root).as_posix()
                if path.is_symlink():
                    yield Entry(relative, 0, bytes, "link to another folder")
                else:
                    yield Entry(f"{relative}/…", 0, bytes)
        for file_name in file_names:
            found += 1
            if found > FILES_MAX:
                raise DocumentError(
                    f"{name} holds more than {FILES_MAX:,} files. "
                    "Choose the part of it that you want to ask about."
                )
            path = here / file_name
            relative = path.relative_to(root).as_posix()
            if path.is_symlink():
                yield Entry(relative, 0, bytes, "link to another file")
            elif not path.is_file():
                yield Entry(relative, 0, bytes, "not a regular file")
            elif not os.access(path, os.R_OK):
                yield Entry(relative, 0, bytes, "may not be read")
            else:
                yield Entry(relative, path.stat().st_size, path.read_bytes)
