"""Files on their way in: stored under numbers, limited, and gone when the program is."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tempfile
import time
from pathlib import Path

import psutil

from app.documents.folders.folder import MANIFEST
from app.outside_names import stored
from app.workspace.listed_document import Source
from mom_core.errors import DocumentError

_BATCH_ID = re.compile(r"[0-9a-f]{32}")
_PATH_CHARACTERS = 1024
# Reading has limits of its own; these only keep a drop from filling the disk.
_FILES_MAX = 200_000
_BATCH_BYTES_MAX = 16 * 1024**3
_BATCHES_MAX = 256
_IDLE_SECONDS_MAX = 3600.0
_FOLDER = re.compile(r"mom-chat-(\d+)-.+")


def new_upload_folder() -> Path:
    """A folder of this start of the program, which only its user may enter.

    Folders of earlier starts that were killed, and could not clean up, are deleted.
    """
    parent = tempfile.gettempdir()
    with os.scandir(parent) as found:
        for entry in found:
            if (match := _FOLDER.fullmatch(entry.name)) and _is_left_behind(entry, int(match[1])):
                shutil.rmtree(entry.path, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"mom-chat-{os.getpid()}-"))


def _is_left_behind(entry: os.DirEntry[str], process_id: int) -> bool:
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    is_ours = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    return stat.S_ISDIR(found.st_mode) and is_ours and not psutil.pid_exists(process_id)


class Uploads:
    """Each dropped thing is a batch, its files stored under numbers.

    A name from outside is data, never a path on this machine.

    Args:
        folder: where they are stored.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: dict[str, list[tuple[str, Path]]] = {}
        self._bytes: dict[str, int] = {}
        self._used_seconds: dict[str, float] = {}

    def place(self, batch: str, path: str) -> Path:
        """Where the next file of a batch is stored.

        Raises:
            DocumentError: the path's form, or too many files.
        """
        if not _BATCH_ID.fullmatch(batch):
            raise DocumentError("The upload has no proper number; drop the file again.")
        parts = path.split("/")
        if (
            not path
            or len(path) > _PATH_CHARACTERS
            or any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in parts)
        ):
            raise DocumentError(f"{path[:80]!r} is not a name that a dropped file can have.")
        if batch not in self._paths:
            self._begin(batch)
        files = self._paths[batch]
        if len(files) >= _FILES_MAX:
            raise DocumentError(
                f"The folder holds more than {_FILES_MAX:,} files. Drop a part of it."
            )
        self._used_seconds[batch] = time.monotonic()
        place = stored(self._folder, batch, str(len(files)))
        files.append((path, place))
        return place

    def _begin(self, batch: str) -> None:
        now = time.monotonic()
        for known, used in list(self._used_seconds.items()):
            # Its tab was closed between two files.
            if now - used > _IDLE_SECONDS_MAX:
                self.forget(known)
        if len(self._paths) >= _BATCHES_MAX:
            raise DocumentError(
                f"{_BATCHES_MAX} uploads have begun and not ended. Wait for them, or start "
                "mom-chat anew."
            )
        try:
            stored(self._folder, batch).mkdir(mode=0o700)
        except FileExistsError as fault:
            # Nobody writes into a document that is here, or into an upload that broke off.
            raise DocumentError("The upload has ended already; drop the file again.") from fault
        self._paths[batch] = []

    def count(self, batch: str, size_bytes: int) -> None:
        """Raises `DocumentError` when a batch grows too large."""
        self._used_seconds[batch] = time.monotonic()
        self._bytes[batch] = self._bytes.get(batch, 0) + size_bytes
        if self._bytes[batch] > _BATCH_BYTES_MAX:
            raise DocumentError(
                f"More than {_BATCH_BYTES_MAX // 1024**3} GiB were dropped at once. "
                "Drop the part that you want to ask about."
            )

    def forget(self, batch: str) -> None:
        """Deletes a batch that did not arrive whole; its number is not taken again."""
        self._bytes.pop(batch, None)
        self._used_seconds.pop(batch, None)
        for _, place in self._paths.pop(batch, ()):
            place.unlink(missing_ok=True)

    def finish(self, batch: str) -> Source:
        """What has arrived whole.

        Raises:
            DocumentError: nothing was uploaded.
        """
        files = self._paths.pop(batch, [])
        self._bytes.pop(batch, None)
        self._used_seconds.pop(batch, None)
        if not files:
            raise DocumentError("Nothing arrived; drop the file again.")
        first_path, first_place = files[0]
        if len(files) == 1 and "/" not in first_path:
            return Source(first_place, first_path)
        name = first_path.split("/", 1)[0]
        names = [path.removeprefix(name + "/") for path, _ in files]
        folder = stored(self._folder, batch)
        (folder / MANIFEST).write_text(json.dumps(names), "utf-8")
        return Source(folder, name, is_upload=True)
