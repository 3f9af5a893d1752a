"""What an archive, with all archives inside it, may still inflate to."""

from __future__ import annotations

from app.documents.limits import Limits
from mom_core.errors import DocumentError

_RATIO_COUNTS_FROM_BYTES = 1024 * 1024


class UnpacksTooFar(DocumentError):
    """An archive is a bomb: not even its other files are read."""


class Budget:
    """Bytes and files that are left.

    Args:
        name: the outermost archive's, shown to people.
        limits: on reading it.
    """

    def __init__(self, name: str, limits: Limits) -> None:
        self._name = name
        self._limits = limits
        self._left_bytes = limits.unpacked_mb * 1024**2
        self._left_files = limits.files

    def take(self, size_bytes: int, file_bytes: int, packed_bytes: int, member: str) -> None:
        """Counts what was inflated just now.

        Args:
            size_bytes: its size.
            file_bytes: all of the file so far.
            packed_bytes: the file's size before it was inflated.
            member: the file's name.

        Raises:
            UnpacksTooFar: it is too much.
        """
        self._left_bytes -= size_bytes
        limits = self._limits
        too_far = file_bytes > _RATIO_COUNTS_FROM_BYTES and file_bytes > limits.ratio * max(
            1, packed_bytes
        )
        if self._left_bytes < 0 or too_far:
            limit = "ratio" if too_far else "unpacked_mb"
            raise UnpacksTooFar(
                f"{self._name} unpacks to far more than it should ({member[:80]}); at most "
                f"{limits.unpacked_mb:,} MB and {limits.ratio} times the packed size are read. "
                f"Unpack it yourself if you trust it, and drop the folder; {limits.raising(limit)}."
            )

    def give_back(self, size_bytes: int) -> None:
        """What was inflated served only to reach what is inside: a tape."""
        self._left_bytes += size_bytes

    def take_files(self, number: int) -> bool:
        """Counts the files of one archive; whether so many were left."""
        self._left_files -= number
        return self._left_files >= 0
