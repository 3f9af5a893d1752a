"""A .zip or .tar of any compression as entries, read without unpacking its files to disk.

An archive is never believed: bytes are counted while they are inflated, names that lead out of
the archive are left out, and limits on files, bytes and ratio end a bomb early.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from app.documents.budget import Budget
from app.documents.folders.folder import too_many_files
from app.documents.folders.selection import Entry, readable_path
from app.documents.parts import Job
from mom_core.errors import DocumentError

_ENCRYPTED_FLAG = 0x1
_LINK_MODE = 0o120000
_BLOCK_BYTES = 1024 * 1024
_DRIVE = re.compile(r"[A-Za-z]:/")
BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    struct.error,
    # Of names that are not in the encoding they claim, and of places before the beginning.
    ValueError,
)


class _Counted(io.RawIOBase):
    """A file in an archive, counted while it is inflated: what the archive says of it may lie."""

    def __init__(self, file: BinaryIO, budget: Budget, packed_bytes: int, member: str) -> None:
        self._file = file
        self._budget = budget
        self._packed_bytes = packed_bytes
        self._member = member
        self._read_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        try:
            data = self._file.read(min(len(buffer), _BLOCK_BYTES))
        except BROKEN as fault:
            raise OSError(f"damaged ({fault})") from fault
        except RuntimeError as fault:
            raise OSError(str(fault)) from fault
        self._read_bytes += len(data)
        self._budget.take(len(data), self._read_bytes, self._packed_bytes, self._member)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def zip_entries(job: Job, archive: zipfile.ZipFile) -> Iterator[Entry]:
    """The files of a .zip.

    Raises:
        DocumentError: too many files, or all locked.
    """
    # Not `is_dir`, which fails on an empty name.
    infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
    budget = job.budget or Budget(job.name, job.limits)
    if not budget.take_files(len(infos)):
        raise too_many_files(job, f"{len(infos):,}")
    if infos and all(info.flag_bits & _ENCRYPTED_FLAG for info in infos):
        raise DocumentError(
            f"{job.name} is locked with a password. Unpack it, and drop the folder instead."
        )
    prefix = _common_folder([info.filename for info in infos])
    for info in infos:
        relative = info.filename.replace("\\", "/").removeprefix(prefix)
        refused = _leads_out(relative)
        if info.flag_bits & _ENCRYPTED_FLAG:
            refused = "locked with a password"
        elif (info.external_attr >> 16) & 0o170000 == _LINK_MODE:
            refused = "link to another file"
        opener = functools.partial(_open_zipped, archive, info, budget)
        yield Entry(readable_path(relative), info.file_size, opener, refused=refused)


def _open_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: Budget) -> BinaryIO:
    try:
        file = cast(BinaryIO, archive.open(info))
    except (*BROKEN, RuntimeError) as fault:
        raise OSError(f"damaged ({fault})") from fault
    return _counted(file, budget, info.compress_size, info.filename)


def _counted(file: BinaryIO, budget: Budget, packed_bytes: int, member: str) -> BinaryIO:
    return io.BufferedReader(  # type: ignore[type-var]
        _Counted(file, budget, packed_bytes, member), 64 * 1024
    )


def inflate(job: Job, kind: str, place: Path) -> None:
    """Inflates a compressed file to `place`, counting.

    Raises:
        DocumentError: damaged, or too large when unpacked.
    """
    opener: Any = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}[kind]
    budget = job.budget or Budget(job.name, job.limits)
    packed = job.path.stat().st_size
    try:
        with (
            cast(BinaryIO, opener(job.path, "rb")) as file,
            _counted(file, budget, packed, job.name) as counted,
            place.open("wb") as out,
        ):
            while block := counted.read(_BLOCK_BYTES):
                out.write(block)
    except OSError as fault:
        raise damaged(job, fault) from fault


def inflated_name(name: str) -> str:
    """A compressed file's name without what says that it is: "a.log" of "a.log.gz"."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and stem and suffix.lower() in ("gz", "bz2", "xz") else name


def tar_entries(job: Job, archive: tarfile.TarFile) -> Iterator[Entry]:
    """The files of a .tar that lies on this machine uncompressed.

    Raises:
        DocumentError: too many files.
    """
    budget = job.budget or Budget(job.name, job.limits)
    members = []
    for member in archive:
        if not member.isdir():
            members.append(member)
            if not budget.take_files(1):
                raise too_many_files(job, f"more than {job.limits.files:,}")
    prefix = _common_folder([member.name for member in members])
    for member in members:
        relative = member.name.removeprefix("./").removeprefix(prefix)
        refused = _leads_out(relative)
        if member.issym() or member.islnk():
            refused = "link to another file"
        elif not member.isreg():
            refused = "not a regular file"
        opener = functools.partial(_open_in_tar, archive, member, budget)
        yield Entry(readable_path(relative), member.size, opener, refused=refused)


def _open_in_tar(archive: tarfile.TarFile, member: tarfile.TarInfo, budget: Budget) -> BinaryIO:
    file = archive.extractfile(member)
    assert file is not None, "only regular files are opened"
    return _counted(cast(BinaryIO, file), budget, member.size, member.name)


def damaged(job: Job, fault: Exception) -> DocumentError:
    """The refusal of an archive that cannot be unpacked."""
    return DocumentError(
        f"{job.name} cannot be unpacked: it is damaged or not an archive ({fault}). "
        "Pack it again, or drop the folder itself."
    )


def _leads_out(relative: str) -> str | None:
    path = PurePosixPath(relative)
    if relative.startswith("/") or ".." in path.parts or _DRIVE.match(relative) or not path.parts:
        return "its path leads out of the archive"
    return None


def _common_folder(names: list[str]) -> str:
    """The one folder that holds everything, as archives of repositories have it, or ""."""
    names = [name.replace("\\", "/").removeprefix("./") for name in names]
    firsts = {name.split("/", 1)[0] for name in names}
    if len(firsts) == 1 and all("/" in name for name in names):
        first = firsts.pop()
        return "" if first in ("", "..") else first + "/"
    return ""
