"""PowerPoint presentations (.pptx): one section a slide, with its title, tables and notes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from app.documents.document import Section
from app.documents.encoding import clean
from app.documents.formats.office.packages import package
from app.documents.formats.tables import table_row
from app.documents.parts import Begun, Done, Job, Opened, Part

_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"


def read_slides(job: Job) -> Iterator[Part]:
    """Yields the slides in their order."""
    import pptx

    with package(job):
        presentation = pptx.Presentation(str(job.path))
        slides = list(presentation.slides)
        yield Opened("slides", len(slides))
        for unit in job.units(len(slides)):
            label = f"slide {unit + 1}"
            yield Begun(unit, label)
            yield Section(label, clean("\n".join(_lines(slides[unit]))).strip())
            yield Done(unit)


def _lines(slide: Any) -> Iterator[str]:
    title = slide.shapes.title
    if title is not None and title.has_text_frame and title.text_frame.text.strip():
        yield "# " + " ".join(title.text_frame.text.split())
    yield from _shapes(slide.shapes, None if title is None else title.shape_id)
    if slide.has_notes_slide:
        frame = slide.notes_slide.notes_text_frame
        if frame is not None and frame.text.strip():
            yield "Notes: " + frame.text.strip()


def _shapes(shapes: Iterable[Any], title_id: int | None) -> Iterator[str]:
    for shape in shapes:
        if shape.shape_id == title_id:
            continue
        if hasattr(shape, "shapes"):
            yield from _shapes(shape.shapes, title_id)
        elif getattr(shape, "has_table", False) and shape.has_table:
            for row in shape.table.rows:
                yield table_row(cell.text for cell in row.cells)
        elif shape.has_text_frame:
            for paragraph in shape.text_frame.paragraphs:
                if text := _text(paragraph).strip():
                    yield "  " * paragraph.level + text


def _text(paragraph: Any) -> str:
    pieces = []
    for node in paragraph._p:
        if node.tag == f"{_A}br":
            pieces.append("\n")
        elif (said := node.findtext(f"{_A}t")) and node.tag in (f"{_A}r", f"{_A}fld"):
            how = node.find(f"{_A}rPr")
            raised = "0" if how is None else how.get("baseline", "0")
            # A power is no number with one digit more.
            is_power = raised.isdigit() and int(raised) > 0
            pieces.append(f"^{said}" if is_power else said)
    return "".join(pieces)
