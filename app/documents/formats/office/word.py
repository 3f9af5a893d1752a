"""Word documents (.docx): headings, paragraphs, lists, tables and notes in reading order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from app.documents.formats.headings import Block, sections_of
from app.documents.formats.office.formulas import OMML, word_formula
from app.documents.formats.office.packages import package, parse_xml
from app.documents.formats.tables import table_row
from app.documents.parts import Job, Part

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_COMPATIBILITY = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_HEADING = re.compile(r"^(?:heading|überschrift|titre)\s*([1-9])$", re.IGNORECASE)
_DEPTH_MAX = 9
_BREAKS = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}
_RUN_STYLE, _RAISED, _VALUE = f"{_W}rPr", f"{_W}vertAlign", f"{_W}val"
_NOTES = {f"{_W}footnoteReference": "footnotes", f"{_W}endnoteReference": "endnotes"}
_COMMENTS = "word/comments.xml"
# Looks, what was moved away or deleted, and a second form of a drawing for old programs.
_UNREAD = {
    _RUN_STYLE,
    f"{_W}pPr",
    f"{_W}moveFrom",
    f"{_W}del",
    f"{_COMPATIBILITY}Fallback",
}


@dataclass(frozen=True, slots=True)
class _Styles:
    """Levels of headings by the ids of their styles, and the ids of the styles of lists."""

    levels: dict[str, int]
    lists: frozenset[str]


# Foot- and endnotes: what refers to them and their id, to their text.
_Notes: TypeAlias = dict[tuple[str, str], str]


def read_word(job: Job) -> Iterator[Part]:
    """Yields the parts between the outermost headings."""
    import docx

    with package(job) as archive:
        document = docx.Document(str(job.path))
        styles = _Styles(
            {style.style_id: _level(style.name or "", style.style_id) for style in document.styles},
            frozenset(
                style.style_id
                for style in document.styles
                if style.element.find(f"{_W}pPr/{_W}numPr") is not None
            ),
        )
        notes = {
            (reference, note.get(f"{_W}id", "")): _note(note)
            for reference, name in _NOTES.items()
            if f"word/{name}.xml" in archive.namelist()
            for note in parse_xml(archive.read(f"word/{name}.xml"))
        }
        blocks = list(_blocks(document.element.body, styles, notes))
        has_comments = _COMMENTS in archive.namelist()
        comments = len(parse_xml(archive.read(_COMMENTS))) if has_comments else 0
    yield from sections_of(job, "word", blocks, comments)


def _level(name: str, style_id: str) -> int:
    if name.lower() == "title":
        return 1
    match = _HEADING.match(name) or _HEADING.match(style_id)
    return int(match[1]) if match else 0


def _blocks(parent: Any, styles: _Styles, notes: _Notes) -> Iterator[Block]:
    """Paragraphs and tables in order, those in content controls and insertions too."""
    for child in parent:
        if child.tag == f"{_W}p":
            text = _text(child, notes).strip()
            if text:
                named = child.find(f"{_W}pPr/{_W}pStyle")
                style = "" if named is None else named.get(_VALUE, "")
                level = styles.levels.get(style, 0)
                listed = child.find(f"{_W}pPr/{_W}numPr")
                if (style in styles.lists or listed is not None) and not level:
                    depth = None if listed is None else listed.find(f"{_W}ilvl")
                    text = _item(text, "0" if depth is None else depth.get(_VALUE, "0"))
                yield Block(text, level)
        elif child.tag == f"{_W}tbl":
            rows = [_row(row, notes) for row in child.iter(f"{_W}tr")]
            yield Block("\n".join(row for row in rows if row))
        elif child.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}ins", f"{_W}customXml"):
            yield from _blocks(child, styles, notes)


def _item(text: str, depth: str) -> str:
    """Of a list within lists."""
    return "  " * (min(int(depth), _DEPTH_MAX) if depth.isdigit() else 0) + f"- {text}"


def _row(row: Any, notes: _Notes) -> str:
    """The cells of one row; those of tables within a cell belong to the cell."""
    cells = [
        " ".join(_text(paragraph, notes) for paragraph in cell.iter(f"{_W}p") if _is_own(paragraph))
        for cell in row.iter(f"{_W}tc")
        if next(cell.iterancestors(f"{_W}tr")) is row
    ]
    return table_row(cells)


def _is_own(paragraph: Any) -> bool:
    """Whether it lies in no other one, as those of a text box do."""
    return next(paragraph.iterancestors(f"{_W}p"), None) is None


def _text(node: Any, notes: _Notes) -> str:
    """All text of a paragraph, that of text boxes on lines of its own, notes where they belong."""
    pieces = []
    for child in node:
        if child.tag == f"{_W}t":
            # A power is no number with one digit more.
            pieces.append("^" if child.text and _is_raised(node) else "")
            pieces.append(child.text or "")
        elif child.tag == f"{OMML}oMath":
            pieces.append(word_formula(child))
        elif child.tag in _BREAKS and node.tag == f"{_W}r":
            pieces.append(_BREAKS[child.tag])
        elif child.tag in _NOTES:
            note = notes.get((child.tag, child.get(f"{_W}id", "")), "")
            pieces.append(f" [Note: {note}]" if note else "")
        elif child.tag not in _UNREAD:
            text = _text(child, notes)
            pieces.append(f"\n{text}\n" if child.tag == f"{_W}p" and text else text)
    return "".join(pieces)


def _is_raised(run: Any) -> bool:
    how = run.find(_RUN_STYLE)
    raised = None if how is None else how.find(_RAISED)
    return raised is not None and raised.get(_VALUE) == "superscript"


def _note(note: Any) -> str:
    return " ".join(_text(paragraph, {}) for paragraph in note.iter(f"{_W}p")).strip()
