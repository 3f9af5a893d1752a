"""Lines of a page by PDFium, in reading order, with what is doubtful about them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pypdfium2
import pypdfium2.raw as raw

from app.documents.document import Health
from app.documents.formats.pdf.columns import Rectangle, find_columns
from app.documents.formats.pdf.glyphs import undecodable
from app.documents.formats.pdf.lines import Line, PageLines

# PDFium's sign for a hyphen that divides a word at the end of a line.
_DIVIDED = "\ufffe"
_TINY_POINTS = 1.5
_WHITE = 250
_FORM_DEPTH_MAX = 4
# Where PDFium writes its answers: made once, as that takes longer than to ask.
_BOX = (ctypes.c_double(), ctypes.c_double(), ctypes.c_double(), ctypes.c_double())
_SIZE, _MATRIX = ctypes.c_float(), raw.FS_MATRIX()
_COLOUR = (ctypes.c_uint(), ctypes.c_uint(), ctypes.c_uint(), ctypes.c_uint())


class PasswordNeeded(Exception):
    """The file is encrypted, and the password is missing or wrong."""


class Damaged(Exception):
    """PDFium cannot read the file, or one of its pages."""


class PdfiumFile:
    """An open PDF. PDFium may be entered by one thread at a time; the parsing process has one.

    Raises:
        PasswordNeeded: encrypted, and `password` does not open it.
        Damaged: not a PDF, or broken beyond PDFium's repair.
    """

    def __init__(self, path: Path, password: str) -> None:
        try:
            self._pdf = pypdfium2.PdfDocument(path, password=password or None)
        except pypdfium2.PdfiumError as fault:
            if getattr(fault, "err_code", None) == raw.FPDF_ERR_PASSWORD:
                raise PasswordNeeded(str(fault)) from fault
            raise Damaged(str(fault)) from fault
        self.pages = len(self._pdf)

    def labels(self, indices: list[int]) -> list[str]:
        """The printed page numbers; "" where a page has none."""
        return [" ".join(self._pdf.get_page_label(index).split()) for index in indices]

    def chapters(self, depth: int) -> list[tuple[int, str, int]]:
        """Level, title and page index of each entry of the outline."""
        found = []
        try:
            for entry in self._pdf.get_toc(max_depth=depth):
                target = entry.get_dest()
                index = None if target is None else target.get_index()
                title = " ".join(entry.get_title().split())
                if index is not None and 0 <= index < self.pages and title:
                    found.append((entry.level, title, index))
        except (pypdfium2.PdfiumError, UnicodeError, ValueError):
            # An outline is a courtesy; what is broken in it costs no text.
            pass
        return found

    def read_page(self, index: int) -> PageLines:
        """Raises `Damaged` where PDFium cannot load the page."""
        try:
            page = self._pdf[index]
        except pypdfium2.PdfiumError as fault:
            raise Damaged(f"page {index + 1}: {fault}") from fault
        try:
            text_page = page.get_textpage()
        except pypdfium2.PdfiumError as fault:
            page.close()
            raise Damaged(f"page {index + 1}: {fault}") from fault
        try:
            return _read(page, text_page, index)
        finally:
            text_page.close()
            page.close()

    def size(self, index: int) -> tuple[float, float]:
        """Width and height of a page in points."""
        width, height = self._pdf.get_page_size(index)
        return width, height

    def picture(self, index: int, dots_per_inch: int) -> tuple[int, int, bytes]:
        """Width, height and grey values of a page, for text recognition."""
        page = self._pdf[index]
        bitmap = page.render(scale=dots_per_inch / 72, grayscale=True)
        try:
            rows = bytes(bitmap.buffer)
            width, height, stride = bitmap.width, bitmap.height, bitmap.stride
            packed = b"".join(rows[y * stride : y * stride + width] for y in range(height))
            return width, height, packed
        finally:
            bitmap.close()
            page.close()

    def close(self) -> None:
        """Frees the file."""
        self._pdf.close()


def _read(page: Any, text_page: Any, index: int) -> PageLines:
    width, height = page.get_size()
    text = text_page.get_text_range()
    rectangles = _rectangles(text_page)
    columns = find_columns(rectangles, width, height)
    if columns is not None and columns.is_interleaved:
        lines = tuple(_lines_of_regions(text_page, columns.regions, height))
    else:
        lines = tuple(_lines(text_page, text, height))
    objects = list(_objects(page))
    health = Health(
        extractor="pdfium",
        undecodable_characters=undecodable(text),
        invisible_characters=_invisible(text_page, objects, rectangles),
        is_image_only=not text.strip()
        and any(kind == raw.FPDF_PAGEOBJ_IMAGE for kind, _ in objects),
        has_two_columns=columns is not None,
    )
    return PageLines(index, height, lines, health)


def _lines(text_page: Any, text: str, height: float) -> Iterator[Line]:
    """The lines of a page in the order its producer wrote them, which is nearly always right."""
    is_aligned = len(text) == text_page.count_chars()
    start = 0
    for piece in text.split("\n"):
        # A divided word makes one line of two.
        for number, part in enumerate(parts := piece.rstrip("\r").split(_DIVIDED)):
            first = start + len(part) - len(part.lstrip())
            top = _top(text_page, first, height) if is_aligned and part.strip() else None
            yield Line(part.rstrip(), top, number < len(parts) - 1)
            start += len(part) + 1
        start += piece.endswith("\r")


def _lines_of_regions(
    text_page: Any, regions: tuple[Rectangle, ...], height: float
) -> Iterator[Line]:
    for region in regions:
        text = text_page.get_text_bounded(*region)
        # Only the height of a region's first line is known for sure.
        top: float | None = height - region[3]
        for piece in text.split("\n"):
            for number, part in enumerate(parts := piece.rstrip("\r").split(_DIVIDED)):
                yield Line(part.rstrip(), top, number < len(parts) - 1)
                top = None


def _top(text_page: Any, character: int, height: float) -> float | None:
    left, bottom, right, top = _BOX
    found = raw.FPDFText_GetCharBox(text_page, character, left, right, bottom, top)
    # The baseline is common to a line, its upper edge depends on the letter.
    return height - bottom.value if found else None


def _rectangles(text_page: Any) -> list[Rectangle]:
    left, bottom, right, top = _BOX
    rectangles = []
    for number in range(text_page.count_rects()):
        if raw.FPDFText_GetRect(text_page, number, left, top, right, bottom):
            rectangles.append((left.value, bottom.value, right.value, top.value))
    return rectangles


def _objects(page: Any) -> Iterator[tuple[int, Any]]:
    """Kind and handle of everything drawn on a page, forms entered."""
    for number in range(raw.FPDFPage_CountObjects(page)):
        item = raw.FPDFPage_GetObject(page, number)
        kind = raw.FPDFPageObj_GetType(item)
        if kind == raw.FPDF_PAGEOBJ_FORM:
            yield from _within(item, 0)
        else:
            yield kind, item


def _within(item: Any, depth: int) -> Iterator[tuple[int, Any]]:
    kind = raw.FPDFPageObj_GetType(item)
    yield kind, item
    if kind == raw.FPDF_PAGEOBJ_FORM and depth < _FORM_DEPTH_MAX:
        for number in range(raw.FPDFFormObj_CountObjects(item)):
            yield from _within(raw.FPDFFormObj_GetObject(item, number), depth + 1)


def _invisible(text_page: Any, objects: list[tuple[int, Any]], rectangles: list[Rectangle]) -> int:
    """Characters that nobody sees: not painted, white on white, transparent, tiny.

    The text layer under a scan is not painted either, but shows what the picture shows.
    """
    # Sizes are asked one by one only where something on the page is that low.
    has_tiny = any(top - bottom < _TINY_POINTS for _, bottom, _, top in rectangles)
    hidden = [
        item
        for kind, item in objects
        if kind == raw.FPDF_PAGEOBJ_TEXT and (_is_unseen(item) or (has_tiny and _is_tiny(item)))
    ]
    if not hidden:
        return 0
    backgrounds = [
        box
        for kind, item in objects
        if kind in (raw.FPDF_PAGEOBJ_IMAGE, raw.FPDF_PAGEOBJ_PATH, raw.FPDF_PAGEOBJ_SHADING)
        and (box := _box(item)) is not None
    ]
    return sum(
        raw.FPDFTextObj_GetText(item, text_page, None, 0) // 2 - 1
        for item in hidden
        if not _lies_on(item, backgrounds)
    )


def _is_unseen(item: Any) -> bool:
    if raw.FPDFTextObj_GetTextRenderMode(item) == raw.FPDF_TEXTRENDERMODE_INVISIBLE:
        return True
    red, green, blue, alpha = _COLOUR
    return bool(raw.FPDFPageObj_GetFillColor(item, red, green, blue, alpha)) and (
        alpha.value == 0 or (red.value >= _WHITE and green.value >= _WHITE and blue.value >= _WHITE)
    )


def _is_tiny(item: Any) -> bool:
    size, matrix = _SIZE, _MATRIX
    raw.FPDFTextObj_GetFontSize(item, size)
    raw.FPDFPageObj_GetMatrix(item, matrix)
    scale = max(abs(matrix.d), abs(matrix.b))
    return bool(0 < size.value * scale < _TINY_POINTS)


def _box(item: Any) -> Rectangle | None:
    left, bottom, right, top = (ctypes.c_float() for _ in range(4))
    if not raw.FPDFPageObj_GetBounds(item, left, bottom, right, top):
        return None
    return left.value, bottom.value, right.value, top.value


def _lies_on(item: Any, backgrounds: list[Rectangle]) -> bool:
    box = _box(item)
    if box is None:
        return False
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return any(b[0] <= x <= b[2] and b[1] <= y <= b[3] for b in backgrounds)
