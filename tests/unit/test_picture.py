"""Pages of a PDF as pictures, and where words stand on them; broken files end with a sentence."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from app.documents.formats.pdf.picture import Request, draw
from mom_core.errors import DocumentError
from tests.documents import make
from tests.documents.make import Text

CANNOT = "This page cannot be drawn; its text is shown as the model sees it."


@pytest.fixture(scope="module")
def two_pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An A-letter page of three lines, and one that goes on from it."""
    first = [
        Text(72, 700, "The tide rises at the harbour"),
        # In the encoding of such a font these two are typographic quotes.
        Text(72, 686, "and the keeper notes the hour in his \xaalarge book\xba"),
        Text(72, 72, "which he carries up the winding stairs of the"),
    ]
    second = [Text(72, 700, "lighthouse every evening before the lamp is lit")]
    return make.write(tmp_path_factory.mktemp("pdf"), "two.pdf", make.pdf([first, second]))


def test_a_page_is_drawn_as_wide_as_asked(two_pages: Path) -> None:
    from PIL import Image

    picture = draw(Request(str(two_pages), "", 0, 300))
    assert picture.width == 300
    assert abs(picture.height - 300 * 792 / 612) <= 1
    assert picture.places == ()
    with Image.open(io.BytesIO(picture.png)) as image:
        assert image.size == (picture.width, picture.height)
        low, high = image.convert("L").getextrema()
        assert low < 120
        assert high == 255


@pytest.mark.parametrize("width", [0, -5, 99, 2401, 10**9])
def test_only_some_widths(two_pages: Path, width: int) -> None:
    with pytest.raises(DocumentError, match=f"100 to 2400 pixels wide, not {width}"):
        draw(Request(str(two_pages), "", 0, width))


def test_words_over_two_lines_have_two_boxes(two_pages: Path) -> None:
    words = "harbour  and\nthe KEEPER"
    first, second = draw(Request(str(two_pages), "", 0, 100, words)).places
    # Left, top, width and height as shares of a page of 612 x 792 points.
    assert first[0] > second[0] == pytest.approx(72 / 612, abs=0.01)
    assert first[1] < second[1]
    for box, baseline in ((first, 700), (second, 686)):
        assert box[1] < 1 - baseline / 792 < box[1] + box[3]
        assert 0 < box[2] < 0.5


def test_typographic_quotes_are_found_by_plain_ones(two_pages: Path) -> None:
    assert len(draw(Request(str(two_pages), "", 0, 100, 'his "large book"')).places) == 1


def test_a_quotation_over_two_pages_is_marked_on_both(two_pages: Path) -> None:
    words = "carries up the winding stairs of the lighthouse every evening before the lamp"
    for page in (0, 1):
        (place,) = draw(Request(str(two_pages), "", page, 100, words)).places
        assert place[2] > 0.1


@pytest.mark.parametrize("turned", [90, 180, 270])
def test_on_a_turned_page_the_box_is_where_the_words_are_seen(tmp_path: Path, turned: int) -> None:
    import pypdf
    from PIL import Image

    path = make.write(tmp_path, "a.pdf", make.pdf([[Text(72, 700, "turned words")]]))
    writer = pypdf.PdfWriter(clone_from=path)
    writer.pages[0].rotate(turned)
    writer.write(tmp_path / "turned.pdf")
    drawn = draw(Request(str(tmp_path / "turned.pdf"), "", 0, 612, "turned words"))
    ((left, top, width, height),) = drawn.places
    with Image.open(io.BytesIO(drawn.png)) as image:
        ink = image.convert("L").point(lambda grey: 255 if grey < 128 else 0).getbbox()
    assert ink is not None
    # The box holds all ink of the page, and little else.
    assert left * drawn.width - 2 <= ink[0]
    assert ink[2] <= (left + width) * drawn.width + 2
    assert top * drawn.height - 2 <= ink[1]
    assert ink[3] <= (top + height) * drawn.height + 2
    assert width * height < 0.02


def test_words_that_are_not_there_have_no_place(two_pages: Path) -> None:
    for words in ("elephants", "  ", "\u00ad"):
        assert draw(Request(str(two_pages), "", 0, 100, words)).places == ()


def test_a_strip_a_mile_long_becomes_no_mile_of_picture(tmp_path: Path) -> None:
    path = make.write(
        tmp_path,
        "strip.pdf",
        make.pdf([[Text(1, 1, "x")]]).replace(b"[0 0 612 792]", b"[0 0 72 9e4]"),
    )
    picture = draw(Request(str(path), "", 0, 2400))
    assert picture.height <= 6 * 2400 + 1


@pytest.mark.parametrize("page", [2, -1, 10**12])
def test_no_such_page(two_pages: Path, page: int) -> None:
    with pytest.raises(DocumentError, match=CANNOT):
        draw(Request(str(two_pages), "", page, 300))


@pytest.mark.parametrize("content", [b"", b"%PDF-1.4 broken", b"\0" * 5000], ids=len)
def test_broken_files(tmp_path: Path, content: bytes) -> None:
    path = make.write(tmp_path, "broken.pdf", content)
    with pytest.raises(DocumentError, match=CANNOT):
        draw(Request(str(path), "", 0, 300))


def test_no_file_and_a_locked_one(two_pages: Path, tmp_path: Path) -> None:
    import pypdf

    with pytest.raises(DocumentError, match=CANNOT):
        draw(Request(str(tmp_path / "none.pdf"), "", 0, 300))
    writer = pypdf.PdfWriter(clone_from=two_pages)
    writer.encrypt("sesame", algorithm="RC4-128")
    locked = tmp_path / "locked.pdf"
    writer.write(locked)
    with pytest.raises(DocumentError, match=CANNOT):
        draw(Request(str(locked), "", 0, 300))
    assert draw(Request(str(locked), "sesame", 0, 300)).width == 300


def test_a_hostile_name_is_a_name(tmp_path: Path) -> None:
    path = make.write(tmp_path, '--x $(touch bad) "; \n.pdf', make.pdf([[Text(72, 700, "x")]]))
    assert draw(Request(str(path), "", 0, 100)).width == 100
    assert not (Path.cwd() / "bad").exists()
