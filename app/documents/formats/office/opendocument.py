"""OpenDocument texts and presentations (.odt, .odp); their spreadsheets go with the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from app.documents.document import Section
from app.documents.encoding import clean
from app.documents.formats.headings import Block, sections_of
from app.documents.formats.office.formulas import math_formula
from app.documents.formats.office.packages import package, parse_xml
from app.documents.formats.tables import table_row
from app.documents.parts import Begun, Done, Job, Opened, Part

_NS = "urn:oasis:names:tc:opendocument:xmlns:"
_TEXT = f"{{{_NS}text:1.0}}"
_TABLE = f"{{{_NS}table:1.0}}"
_DRAW = f"{{{_NS}drawing:1.0}}"
_OFFICE = f"{{{_NS}office:1.0}}"
_STYLE = f"{{{_NS}style:1.0}}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_MATH = "{http://www.w3.org/1998/Math/MathML}math"
_NOTES = f"{{{_NS}presentation:1.0}}notes"
# What hangs beside the text and is not part of it.
_ASIDE = {
    f"{_OFFICE}annotation",
    f"{_TEXT}tracked-changes",
    f"{_TEXT}sequence-decls",
    f"{_OFFICE}forms",
}
_REPEATED_MAX = 100
_DEPTH_MAX = 200


def read_opendocument_text(job: Job) -> Iterator[Part]:
    """Yields the parts between the outermost headings."""
    body = _content(job).find(f"{_OFFICE}body/{_OFFICE}text")
    comments = 0 if body is None else sum(1 for _ in body.iter(f"{_OFFICE}annotation"))
    yield from sections_of(job, "word", [] if body is None else _blocks(body), comments)


def read_opendocument_slides(job: Job) -> Iterator[Part]:
    """Yields the slides in their order."""
    slides = list(_content(job).iter(f"{_DRAW}page"))
    yield Opened("slides", len(slides))
    for unit in job.units(len(slides)):
        label = f"slide {unit + 1}"
        yield Begun(unit, label)
        notes = slides[unit].find(_NOTES)
        spoken = [] if notes is None else [block.line for block in _blocks(notes)]
        if notes is not None:
            slides[unit].remove(notes)
        lines = [block.line for block in _blocks(slides[unit])]
        if spoken:
            lines.append("Notes: " + "\n".join(spoken))
        yield Section(label, clean("\n".join(lines)).strip())
        yield Done(unit)


def _content(job: Job) -> Any:
    """The root, its formulas, which lie in files of their own, and its powers as text."""
    with package(job) as archive:
        root = parse_xml(archive.read("content.xml"))
        names = frozenset(archive.namelist())
        for drawn in list(root.iter(f"{_DRAW}object")):
            place = f"{drawn.get(_HREF, '').removeprefix('./').rstrip('/')}/content.xml"
            if place in names:
                formula = parse_xml(archive.read(place))
                if formula.tag == _MATH:
                    drawn.text = math_formula(formula)
                    # As if it were a part of the paragraph's text.
                    drawn.tag = f"{_TEXT}span"
    raised = {
        style.get(f"{_STYLE}name")
        for style in root.iter(f"{_STYLE}style")
        for how in style.iter(f"{_STYLE}text-properties")
        if how.get(f"{_STYLE}text-position", "").startswith("super")
    }
    for span in root.iter(f"{_TEXT}span"):
        # A power is no number with one digit more.
        if span.text and span.get(f"{_TEXT}style-name") in raised:
            span.text = f"^{span.text}"
    return root


def _blocks(parent: Any, depth: int = 0) -> Iterator[Block]:
    for child in parent if depth < _DEPTH_MAX else ():
        if child.tag in (f"{_TEXT}p", f"{_TEXT}h"):
            level = 0
            if child.tag == f"{_TEXT}h":
                given = child.get(f"{_TEXT}outline-level", "1")
                level = min(6, int(given)) if given.isdigit() else 1
            text = _text(child).strip()
            if text:
                lists = sum(a.tag == f"{_TEXT}list-item" for a in child.iterancestors())
                yield Block(f"{'  ' * (lists - 1)}- {text}" if lists and not level else text, level)
        elif child.tag == f"{_TABLE}table":
            rows = [_row(row) for row in child.iter(f"{_TABLE}table-row")]
            yield Block("\n".join(row for row in rows if row))
        elif child.tag not in _ASIDE:
            yield from _blocks(child, depth + 1)


def _row(row: Any) -> str:
    cells: list[str] = []
    for cell in row.iter(f"{_TABLE}table-cell", f"{_TABLE}covered-table-cell"):
        repeated = cell.get(f"{_TABLE}number-columns-repeated", "1")
        times = min(int(repeated), _REPEATED_MAX) if repeated.isdigit() else 1
        cells += [" ".join(_text(p) for p in cell.iter(f"{_TEXT}p"))] * times
    return table_row(cells)


def _text(node: Any) -> str:
    """The text of a paragraph with blanks, tabs and line ends, which are elements here."""
    pieces = [node.text or ""]
    for child in node:
        if child.tag == f"{_TEXT}s":
            count = child.get(f"{_TEXT}c", "1")
            pieces.append(" " * (min(int(count), _REPEATED_MAX) if count.isdigit() else 1))
        elif child.tag == f"{_TEXT}tab":
            pieces.append("\t")
        elif child.tag == f"{_TEXT}line-break":
            pieces.append("\n")
        elif child.tag == f"{_TEXT}note":
            body = child.find(f"{_TEXT}note-body")
            said = [] if body is None else ["".join(p.itertext()) for p in body.iter(f"{_TEXT}p")]
            pieces.append(f" [Note: {' '.join(said).strip()}]" if said else "")
        elif child.tag not in _ASIDE and isinstance(child.tag, str):
            pieces.append(_text(child))
        pieces.append(child.tail or "")
    return "".join(pieces)
