"""The receipt names everything that is doubtful about a document."""

from __future__ import annotations

from app.documents import Document, Health, LeftOut, Section, extent, receipt


def page(number: int, text: str = "some words", **health: object) -> Section:
    return Section(f"p. {number}", text, health=Health(**health))  # type: ignore[arg-type]


def test_every_doubt_is_told_with_its_pages() -> None:
    pages = (
        page(1),
        page(2, "", is_image_only=True),
        page(3, "", fault="not read: it took longer than 60 seconds"),
        page(4, undecodable_characters=3),
        page(5, "x" * 1_000, undecodable_characters=3),
        page(6, invisible_characters=20),
        page(7, has_two_columns=True),
        page(8, extractor="tesseract"),
        page(9, running_characters=12),
    )
    document = Document("a.pdf", "pdf", pages, (LeftOut("b", "c"),), ("A note.",))
    assert receipt(document, 77) == (
        "9 of 9 pages, 77 tokens, nothing cut, 1 page without text (p. 2), "
        "1 page not readable (p. 3), 1 page with undecodable characters (p. 4), "
        "1 page with invisible text (p. 6), two columns on 1 page, "
        "text of 1 page recognised by Tesseract, running headers and footers left out on 1 page, "
        "1 entry left out, A note."
    )


def test_of_many_pages_some_are_named() -> None:
    document = Document("a.pdf", "pdf", tuple(page(number, "") for number in range(1, 20)))
    assert "19 pages without text (p. 1, p. 2, p. 3, p. 4, p. 5, p. 6, p. 7, p. 8, …)" in receipt(
        document, None
    )


def test_files_of_a_folder_are_not_their_pages() -> None:
    pages = tuple(Section(f"a.pdf p. {n}", "x", "a.pdf", health=Health(fault="y")) for n in (1, 2))
    document = Document("p", "code", (*pages, Section("b.py", "x", "b.py")))
    assert extent(document) == "2 files in 3 parts"
    assert receipt(document, None) == (
        "2 of 2 files in 3 parts, nothing cut, 2 parts not readable (a.pdf p. 1, a.pdf p. 2)"
    )
    assert extent(Document("p", "code", (Section("b.py", "x", "b.py"),))) == "1 file"
