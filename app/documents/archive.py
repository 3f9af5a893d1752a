"""A .zip of source files or texts as one document, read without unpacking it to disk.

An archive is never believed: bytes are counted while they are inflated, names that lead out of
the archive are left out, and limits on entries, bytes and ratio end a bomb early.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from app.documents.document import Document
from app.documents.folder import FILES_MAX, read_entries
from app.documents.selection import FILE_BYTES_MAX, Entry
from mom_core.errors import DocumentError

TOTAL_BYTES_MAX = 512 * 1024 * 1024
_RATIO_MAX = 200
_RATIO_COUNTS_FROM_BYTES = 1024 * 1024
_ENCRYPTED_FLAG = 0x1
_LINK_MODE = 0o120000


def read_archive(path: Path, name: str) -> Document:
    """Reads all text files of a .zip, one section per file.

    Raises:
        DocumentError: damaged, locked, too large when unpacked, or without a text file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _refuse_office(archive, name)
            return read_entries(_entries(archive, name), name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as fault:
        raise DocumentError(
            f"{name} cannot be unpacked: it is damaged or not a .zip archive ({fault}). "
            "Pack it again, or drop the folder itself."
        ) from fault


def _refuse_office(archive: zipfile.ZipFile, name: str) -> None:
    """Word processors, spreadsheets and e-books are archives too, but of markup nobody reads."""
    if {"[Content_Types].xml", "mimetype"} & set(archive.namelist()):
        raise DocumentError(
            f"{name} is an office document or e-book, which mom-chat does not read yet. "
            "Save it as a PDF or as plain text, and drop that."
        )


def _entries(archive: zipfile.ZipFile, name: str) -> Iterator[Entry]:
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if len(infos) > FILES_MAX:
        raise DocumentError(
            f"{name} holds {len(infos):,} files; at most {FILES_MAX:,} are read. "
            "Pack the part of it that you want to ask about."
        )
    if infos and all(info.flag_bits & _ENCRYPTED_FLAG for info in infos):
        raise DocumentError(
            f"{name} is locked with a password. Unpack it, and drop the folder instead."
        )
    prefix = _common_folder([info.filename for info in infos])
    budget = [TOTAL_BYTES_MAX]
    for info in infos:
        relative = info.filename.replace("\\", "/").removeprefix(prefix)
        yield Entry(
            relative, info.file_size, _loader(archive, info, name, budget), _refusal(info, relative)
        )


def _refusal(info: zipfile.ZipInfo, relative: str) -> str | None:
    if relative.startswith("/") or ".." in PurePosixPath(relative).parts or ":" in relative[:3]:
        return "its path leads out of the archive"
    if info.flag_bits & _ENCRYPTED_FLAG:
        return "locked with a password"
    if (info.external_attr >> 16) & 0o170000 == _LINK_MODE:
        return "link to another file"
    return None


def _loader(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, budget: list[int]
) -> Callable[[], bytes]:
    def load() -> bytes:
        with archive.open(info) as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
        budget[0] -= len(data)
        inflated_too_far = len(data) > _RATIO_COUNTS_FROM_BYTES and len(data) > _RATIO_MAX * max(
            1, info.compress_size
        )
        if len(data) > FILE_BYTES_MAX or inflated_too_far or budget[0] < 0:
            raise DocumentError(
                f"{name} unpacks to far more than it says ({info.filename[:80]}); at most "
                f"{TOTAL_BYTES_MAX // 1024**2} MB of text are read from an archive. "
                "Unpack it yourself if you trust it, and drop the folder."
            )
        return data

    return load


def _common_folder(names: list[str]) -> str:
    """The one folder that holds everything, as archives of repositories have it, or ""."""
    firsts = {name.replace("\\", "/").split("/", 1)[0] for name in names}
    inside = all("/" in name.replace("\\", "/") for name in names)
    if len(firsts) == 1 and inside and (first := firsts.pop()) not in ("", ".."):
        return first + "/"
    return ""
