"""Text recognition for scanned pages by the program Tesseract, where it is installed."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess

from app.documents.document import Health
from app.documents.formats.pdf.lines import Line, PageLines
from app.documents.formats.pdf.pdfium import Damaged, PdfiumFile

_DOTS_PER_INCH = 300
_PIXELS_MAX = 40_000_000


def is_installed() -> bool:
    """Whether pages can be recognised on this machine."""
    return shutil.which("tesseract") is not None


def recognise(file: PdfiumFile, page: PageLines, timeout_seconds: float) -> PageLines:
    """The page with the text that Tesseract sees on it.

    Raises:
        Damaged: the page cannot be drawn, or Tesseract failed or took too long.
    """
    width_points, height_points = file.size(page.index)
    area = max(1.0, width_points * height_points)
    resolution = int(min(_DOTS_PER_INCH, 72 * (_PIXELS_MAX / area) ** 0.5))
    width, height, grey = file.picture(page.index, max(1, resolution))
    command = ["tesseract", "stdin", "stdout", "--dpi", str(resolution), "-l", _languages()]
    try:
        result = subprocess.run(
            command,
            input=b"P5 %d %d 255\n" % (width, height) + grey,
            capture_output=True,
            timeout=timeout_seconds,
            env=os.environ | {"OMP_THREAD_LIMIT": "1"},
        )
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise Damaged(f"page {page.index + 1}: text recognition failed ({fault})") from fault
    if result.returncode:
        words = " ".join(result.stderr.decode("utf-8", "replace").split())[-200:]
        raise Damaged(f"page {page.index + 1}: text recognition failed ({words})")
    text = result.stdout.decode("utf-8", "replace").replace("\f", "").strip()
    lines = tuple(Line(line) for line in text.splitlines())
    return PageLines(page.index, page.height_points, lines, Health(extractor="tesseract"))


@functools.cache
def _languages() -> str:
    """All that are installed: which one a scan is written in is not known."""
    listed = subprocess.run(["tesseract", "--list-langs"], capture_output=True, text=True)
    names = [line.strip() for line in (listed.stdout or listed.stderr).splitlines()[1:]]
    return "+".join(name for name in names if name and name != "osd") or "eng"
