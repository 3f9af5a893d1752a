"""A page of a PDF as a picture, with the places of its words.

Run as `-m app.documents.formats.pdf.picture`. Each picture is drawn in a process of its own with
limits on memory and time, so that a hostile file can end nothing else. The process takes a
request as JSON on stdin and writes a line of JSON, then the PNG.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mom_core.errors import DocumentError

WIDTHS = range(100, 2401)
_SECONDS = 20
_MEMORY_BYTES = 2 * 1024**3
_ASPECT_MAX = 6.0
# Of a quotation that runs on to the next page, so much is looked for at least.
_PART_CHARACTERS = 24
# Steps to the width of a page: boxes are given in shares of it.
_SHARES = 10_000
_SAME = str.maketrans({"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"', "\u2011": "-"})


@dataclass(frozen=True, slots=True)
class Picture:
    """A page.

    Args:
        png: the picture.
        width: the picture's, in pixels.
        height: the same.
        places: where the words stand, one box a line: left, top, width, height as shares of the
            page; empty if they are not on it.
    """

    png: bytes
    width: int
    height: int
    places: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """What is wanted.

    Args:
        path: the file.
        password: opens it; "" for none.
        page: from 0.
        width: the picture's, in pixels.
        words: to be found on the page; "" for none.
    """

    path: str
    password: str
    page: int
    width: int
    words: str = ""


def draw(request: Request) -> Picture:
    """Draws a page in a process of its own.

    Raises:
        DocumentError: the page cannot be drawn; a sentence says so.
    """
    if request.width not in WIDTHS:
        raise DocumentError(
            f"A page can be drawn {WIDTHS.start} to {WIDTHS.stop - 1} pixels wide, "
            f"not {request.width}."
        )
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps(asdict(request)).encode(),
            capture_output=True,
            timeout=_SECONDS,
            check=True,
            cwd=Path(__file__).parents[4],
        )
        head, _, png = done.stdout.partition(b"\n")
        drawn = json.loads(head)
        places = tuple(tuple(box) for box in drawn["places"])
        return Picture(png, drawn["width"], drawn["height"], places)
    except (subprocess.SubprocessError, OSError, ValueError, KeyError) as fault:
        raise DocumentError(
            "This page cannot be drawn; its text is shown as the model sees it."
        ) from fault


def _main() -> None:
    _limit()
    request = Request(**json.loads(sys.stdin.buffer.readline()))
    out = sys.stdout.buffer
    picture = _draw_here(request)
    head = {"width": picture.width, "height": picture.height, "places": picture.places}
    out.write(json.dumps(head).encode() + b"\n" + picture.png)


def _limit() -> None:
    with contextlib.suppress(ImportError):
        import resource

        for kind, most in (
            (resource.RLIMIT_AS, _MEMORY_BYTES),
            (resource.RLIMIT_CPU, _SECONDS),
            (resource.RLIMIT_CORE, 0),
            # Nothing is written but to the pipe.
            (resource.RLIMIT_FSIZE, 0),
        ):
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(kind, (most, most))


def _draw_here(request: Request) -> Picture:
    import pypdfium2

    document = pypdfium2.PdfDocument(request.path, password=request.password or None)
    page = document[request.page]
    width, height = page.get_size()
    # A strip a mile long must not become a picture a mile long.
    wide = min(request.width, round(request.width * _ASPECT_MAX * width / max(height, 1)))
    bitmap = page.render(scale=max(wide, 1) / max(width, 1))
    places = _places(page, request.words) if request.words else ()
    buffer = io.BytesIO()
    bitmap.to_pil().convert("RGB").save(buffer, "PNG", compress_level=3)
    return Picture(buffer.getvalue(), bitmap.width, bitmap.height, places)


def _places(page: Any, words: str) -> tuple[tuple[float, float, float, float], ...]:
    """Boxes of the words, a line each, whatever white space and hyphens divide them."""
    text = page.get_textpage()
    number = text.count_chars()
    letters, at = [], []
    for index in range(number):
        letter = text.get_text_range(index, 1).translate(_SAME).casefold()
        if letter.strip() and letter not in ("\u00ad", "\ufffe", "\u0002"):
            letters.append(letter)
            at += [index] * len(letter)
    whole, wanted = "".join(letters), "".join(words.translate(_SAME).casefold().split())
    start, found = whole.find(wanted), len(wanted)
    if start < 0 and len(wanted) > _PART_CHARACTERS:
        # It begins on this page and ends on the next, or the other way round.
        for part in range(len(wanted) - 1, _PART_CHARACTERS, -1):
            if whole.endswith(wanted[:part]):
                start, found = len(whole) - part, part
                break
            if whole.startswith(wanted[-part:]):
                start, found = 0, part
                break
    if start < 0 or not wanted:
        return ()
    lines: list[list[float]] = []
    for index in at[start : start + found]:
        left, bottom, right, top = text.get_charbox(index, loose=True)
        middle = (top + bottom) / 2
        if lines and lines[-1][1] <= middle <= lines[-1][3]:
            line = lines[-1]
            line[:] = [
                min(line[0], left),
                min(line[1], bottom),
                max(line[2], right),
                max(line[3], top),
            ]
        else:
            lines.append([left, bottom, right, top])
    return tuple(_as_seen(page, *line) for line in lines)


def _as_seen(
    page: Any, left: float, bottom: float, right: float, top: float
) -> tuple[float, float, float, float]:
    """A box in shares of the page as it is shown: turned and cut as it says."""
    import ctypes

    from pypdfium2 import raw

    across, down = [], []
    for x, y in ((left, top), (right, bottom)):
        at_x, at_y = ctypes.c_int(), ctypes.c_int()
        raw.FPDF_PageToDevice(page.raw, 0, 0, _SHARES, _SHARES, 0, x, y, at_x, at_y)
        across.append(at_x.value / _SHARES)
        down.append(at_y.value / _SHARES)
    return min(across), min(down), abs(across[1] - across[0]), abs(down[1] - down[0])


if __name__ == "__main__":
    _main()
