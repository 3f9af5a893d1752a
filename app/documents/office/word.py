"""Word documents (.docx): headings, paragraphs, lists, tables and notes in reading order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from app.documents.headings import Block, sections_of
from app.documents.office.packages import package, parse_xml
from app.documents.parts import Job, Part
from app.documents.tables import table_row

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_HEADING = re.compile(r"^(?:heading|überschrift|titre)\s*([1-9])$", re.IGNORECASE)
_BREAKS = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}
_NOTES = ("word/footnotes.xml", "word/endnotes.xml")


def read_word(job: Job) -> Iterator[Part]:
    """Yields the parts between the outermost headings."""
    import docx

    with package(job) as archive:
        document = docx.Document(str(job.path))
        levels = {
            style.style_id: _level(style.name or "", style.style_id) for style in document.styles
        }
        blocks = list(_blocks(document.element.body, levels))
        for name in _NOTES:
            if name in archive.namelist():
                blocks += _notes(parse_xml(archive.read(name)))
    yield from sections_of(job, "word", blocks)


def _level(name: str, style_id: str) -> int:
    if name.lower() == "title":
        return 1
    match = _HEADING.match(name) or _HEADING.match(style_id)
    return int(match[1]) if match else 0


def _blocks(parent: Any, levels: dict[str, int]) -> Iterator[Block]:
    """Paragraphs and tables in order, those in content controls and insertions too."""
    for child in parent:
        if child.tag == f"{_W}p":
            text = _text(child).strip()
            if text:
                style = child.find(f"{_W}pPr/{_W}pStyle")
                level = 0 if style is None else levels.get(style.get(f"{_W}val", ""), 0)
                is_item = child.find(f"{_W}pPr/{_W}numPr") is not None and not level
                yield Block(f"- {text}" if is_item else text, level)
        elif child.tag == f"{_W}tbl":
            rows = [_row(row) for row in child.iter(f"{_W}tr")]
            yield Block("\n".join(row for row in rows if row))
        elif child.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}ins", f"{_W}customXml"):
            yield from _blocks(child, levels)


def _row(row: Any) -> str:
    """The cells of one row; those of tables within a cell belong to the cell."""
    cells = [
        " ".join(_text(paragraph) for paragraph in cell.iter(f"{_W}p"))
        for cell in row.iter(f"{_W}tc")
        if next(cell.iterancestors(f"{_W}tr")) is row
    ]
    return table_row(cells)


def _text(paragraph: Any) -> str:
    """All text that is not deleted; of an alternative only the first choice counts."""
    pieces = []
    for node in paragraph.iter():
        if node.tag == f"{_W}t":
            pieces.append(node.text or "")
        elif node.tag in _BREAKS and node.getparent().tag == f"{_W}r":
            pieces.append(_BREAKS[node.tag])
    return "".join(pieces)


def _notes(root: Any) -> Iterator[Block]:
    for number, note in enumerate(root, 1):
        text = " ".join(_text(paragraph) for paragraph in note.iter(f"{_W}p")).strip()
        if text:
            yield Block(f"Note {note.get(f'{_W}id', str(number))}: {text}")
