"""Texts and tokens kept between runs, by content: the same file opens at once the second time."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import platformdirs

from app.documents.document import Chapter, Document, Health, LeftOut, Section
from app.documents.parts import Job
from app.documents.secrets import is_secret
from mom_core.files import write_aside

_LIMIT_BYTES = 1024**3
_HASHED_BYTES_MAX = 1024**3


class DiskCache:
    """Blobs by key in a folder of this user; the ones longest unused go first.

    Whatever goes wrong with it costs time and nothing else.

    Args:
        folder: made when needed; by default in the user's cache.
        limit_bytes: what it may grow to.
    """

    def __init__(self, folder: Path | None = None, limit_bytes: int = _LIMIT_BYTES) -> None:
        self._folder = folder or platformdirs.user_cache_path("mom-chat", False) / "documents"
        self._limit_bytes = limit_bytes

    def get(self, key: str) -> bytes | None:
        """What was put under `key`, None if it is not there any more or was damaged."""
        path = self._folder / key
        try:
            data = zlib.decompress(path.read_bytes())
            os.utime(path)
        except (OSError, zlib.error):
            return None
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keeps `data`, unless the disk is full or may not be written."""
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_aside(self._folder / key, zlib.compress(data, 1))
            self._make_room()

    def _make_room(self) -> None:
        with os.scandir(self._folder) as found:
            known = sorted(
                (entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in found
            )
        excess = sum(size for _, size, _ in known) - self._limit_bytes
        for _, size, path in known:
            if excess <= 0:
                break
            os.unlink(path)
            excess -= size


def key_of(job: Job) -> str | None:
    """The key of a file's text: its bytes, the choices and the readers' version; not its name.

    None for what is not kept: folders, and what a password protects.
    """
    if not job.path.is_file() or job.options.password or job.options.pages is not None:
        return None
    try:
        if job.path.stat().st_size > _HASHED_BYTES_MAX:
            return None
        with job.path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
    # The suffix decides how some texts are read, and is all of the name that does.
    how = json.dumps(
        # A higher limit is to have its effect on a file that was read before.
        [
            asdict(job.options),
            asdict(job.limits),
            job.path.suffix,
            Path(job.name).suffix.lower(),
            _version(),
        ]
    )
    return f"text-{hashlib.sha256(f'{content}{how}'.encode()).hexdigest()}"


def document_to_bytes(document: Document) -> bytes:
    """For the cache. What is probably secret is not kept."""
    left_out = tuple(
        replace(one, text=None) if is_secret(one) else one for one in document.left_out
    )
    return json.dumps(asdict(replace(document, left_out=left_out))).encode()


def document_from_bytes(data: bytes, name: str) -> Document | None:
    """The document under the name it has now; None where the bytes are not one."""
    try:
        values: dict[str, Any] = json.loads(data)
        known = values["name"]
        sections = []
        for section in values["sections"]:
            if section["label"] == known:
                section["label"] = name
            sections.append(Section(**section | {"health": Health(**section["health"])}))
        return Document(
            **values
            | {
                "name": name,
                "sections": tuple(sections),
                "left_out": tuple(LeftOut(**one) for one in values["left_out"]),
                "chapters": tuple(Chapter(**one) for one in values["chapters"]),
                "notes": tuple(values["notes"]),
            }
        )
    except (ValueError, KeyError, TypeError):
        return None


@functools.cache
def _version() -> str:
    """A text of other readers is not the text of these."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
