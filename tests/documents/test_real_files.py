"""Files that other programs made (tests/data/documents/README.md)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.documents import read

DATA = Path(__file__).parents[1] / "data" / "documents"


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


@pytest.mark.parametrize("name", ["harbour.docx", "harbour.odt", "harbour.epub", "harbour.pptx"])
def test_one_text_through_four_formats(name: str) -> None:
    text = "\n".join(section.text for section in read(DATA / name).sections)
    for wanted in (
        "# Ropes\n",
        "tied twice" if name != "harbour.epub" else "tied *twice*",
        "Dora | 1200",
        "first mooring",
        # Where it belongs, in formats that know notes; the others have them as text.
        "before a storm. [Note: Once in fair weather.]"
        if name in ("harbour.docx", "harbour.odt")
        else "Once in fair weather.",
        "Grüße, 日本語, שלום.",
        "“Never cut a rope”, he said.",
        "def tie(rope):\n",
    ):
        assert wanted in text, f"{name} lacks {wanted!r}: {text}"
    places = [
        text.index(word) for word in ("before a storm", "Ida", "second mooring", "from the west")
    ]
    assert places == sorted(places)


@pytest.mark.parametrize("name", ["harbour-columns.pdf", "harbour-ghostscript.pdf"])
def test_two_columns_by_a_typesetter(name: str) -> None:
    document = read(DATA / name)
    assert document.sections[0].health.has_two_columns
    text = "\n".join(section.text for section in document.sections)
    numbers = [int(number) for number in re.findall(r"Paragraph\s+(\d+)\s+begins", text)]
    assert numbers == list(range(1, 25))


def test_a_spreadsheet_of_before_2007() -> None:
    document = read(DATA / "harbour.xls")
    assert {section.label: section.text for section in document.sections} == {
        "Ships": "Ship | Tons | Built\nDora | 1200 | 1931-05-04\nGröße | 90.5 | 1954-02-01",
        "Notes": "none",
    }


def test_markdown_is_read_as_it_is() -> None:
    document = read(DATA / "harbour.md")
    assert document.sections[0].text == (DATA / "harbour.md").read_text()
