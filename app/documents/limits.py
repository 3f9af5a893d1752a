"""Every limit on reading, generous and adjustable; each refusal names its limit.

A local program has no reason for small limits: these keep a broken or hostile file from filling
the machine. `--limit pages=200000` on the command line raises one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from mom_core.errors import InvalidSetting


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What reading one dropped thing may take.

    Args:
        file_mb: size of a file.
        text_mb: size of a text file, and of everything else once it is text.
        member_mb: size of one file in a folder or archive.
        pages: the most pages of a PDF.
        files: in a folder or archive.
        unpacked_mb: what an archive may inflate to.
        ratio: by how much one of its files may inflate.
        nesting: how many archives may lie around a file.
        memory_mb: memory of the parsing process.
        page_seconds: for one page or file; it is skipped after that.
        seconds: for the whole.
    """

    file_mb: int = 4096
    text_mb: int = 512
    member_mb: int = 64
    pages: int = 100_000
    files: int = 50_000
    unpacked_mb: int = 4096
    ratio: int = 200
    nesting: int = 3
    memory_mb: int = 2048
    page_seconds: int = 60
    seconds: int = 3600

    def raising(self, name: str) -> str:
        """The way to more, for the end of a refusal."""
        return f"--limit {name}=N on the command line allows more"


DEFAULT_LIMITS = Limits()


def raisable_limit(refusal: str) -> str | None:
    """The limit that a refusal names, None if it names none."""
    match = re.search(r"--limit (\w+)=N", refusal)
    return match[1] if match and match[1] in asdict(DEFAULT_LIMITS) else None


def parse_limits(settings: Iterable[str]) -> Limits:
    """Limits from words such as "pages=200000".

    Raises:
        InvalidSetting: no such limit, or not a whole number of at least 1.
    """
    known: dict[str, Any] = asdict(DEFAULT_LIMITS)
    changes = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in known:
            raise InvalidSetting(
                f"There is no limit {name!r}; it must be one of {', '.join(known)}, "
                "such as --limit pages=200000."
            )
        if not (value.isascii() and value.isdigit() and int(value) >= 1):
            raise InvalidSetting(
                f"The limit {name} is {value!r}; it must be a whole number of at least 1."
            )
        changes[name] = int(value)
    return replace(DEFAULT_LIMITS, **changes)
