"""Small files of every kind: by real libraries where there is one, by hand elsewhere."""

from __future__ import annotations

import datetime
import io
import json
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Text:
    """A piece of text on a page of a PDF, from its lower left corner in points."""

    x: float
    y: float
    text: str
    size: float = 11
    before: str = ""


def pdf(pages: Iterable[list[Text]], picture_only: Iterable[int] = ()) -> bytes:
    """A PDF in Helvetica, one list of texts a page; some pages hold a picture too."""
    pages, pictured = list(pages), set(picture_only)
    objects: list[bytes] = [b"<< /Type /Catalog /Pages 2 0 R >>", b""]
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    grey = bytes(range(64))
    objects.append(
        b"<< /Type /XObject /Subtype /Image /Width 8 /Height 8 /BitsPerComponent 8 "
        b"/ColorSpace /DeviceGray /Length 64 >>\nstream\n" + grey + b"\nendstream"
    )
    kids = []
    for number, texts in enumerate(pages):
        content = b"q 400 0 0 400 100 200 cm /Im Do Q\n" if number in pictured else b""
        for one in texts:
            shown = one.text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
            content += (
                f"q {one.before} BT /F {one.size} Tf {one.x} {one.y} Td ({shown}) Tj ET Q\n"
            ).encode("latin-1")
        objects.append(b"<< /Length %d >>\nstream\n" % len(content) + content + b"\nendstream")
        kids.append(len(objects) + 1)
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F 3 0 R >> /XObject << /Im 4 0 R >> >> >>" % len(objects)
        )
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (
        len(kids),
        b" ".join(b"%d 0 R" % kid for kid in kids),
    )
    out = b"%PDF-1.4\n"
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
    return out + trailer % (len(objects) + 1, table)


def zipped(files: dict[str, bytes | str], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A .zip, its first file stored as the office formats want it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for number, (name, content) in enumerate(files.items()):
            archive.writestr(name, content, zipfile.ZIP_STORED if not number else None)
    return out.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    """A .tar, compressed as the mode says."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def word(last: str = "") -> bytes:
    """`last`: the XML of one more paragraph."""
    import docx
    from docx.oxml import parse_xml

    document = docx.Document()
    document.add_heading("Harbour", 1)
    document.add_paragraph("The harbour opens at dawn.")
    document.add_paragraph("Ropes first", style="List Bullet")
    table = document.add_table(2, 2)
    for number, text in enumerate(("Ship", "Tons", "Dora", "1200")):
        table.cell(number // 2, number % 2).text = text
    document.add_heading("Weather", 1)
    document.add_paragraph("Wind from the west.")
    if last:
        paragraph = parse_xml(f"<w:p {_OOXML}>{last}</w:p>")
        document.element.body.insert(-1, paragraph)
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def slides(raised: str = "") -> bytes:
    """`raised`: the power of a ten on the slide."""
    import pptx

    presentation = pptx.Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[1])
    slide.shapes.title.text = "Tides"
    slide.placeholders[1].text = "High water at noon"
    slide.notes_slide.notes_text_frame.text = "Mention the moon"
    table = slide.shapes.add_table(1, 2, 0, 0, 100, 100).table
    table.cell(0, 0).text, table.cell(0, 1).text = "Port", "Height"
    group = slide.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, 100, 100).text_frame.text = "in a group"
    if raised:
        paragraph = group.shapes.add_textbox(0, 0, 100, 100).text_frame.paragraphs[0]
        paragraph.add_run().text = "10"
        run = paragraph.add_run()
        run.text = raised
        run.font._element.set("baseline", "30000")
        paragraph.add_line_break()
        paragraph.add_run().text = "second line"
    out = io.BytesIO()
    presentation.save(out)
    return out.getvalue()


def sheets() -> bytes:
    import xlsxwriter

    out = io.BytesIO()
    with xlsxwriter.Workbook(out) as book:
        first = book.add_worksheet("Prices")
        first.write_row(0, 0, ["Item", "Price"])
        first.write_row(1, 0, ["Rope", 12])
        first.write_row(2, 0, ["Net", 3.5])
        book.add_worksheet("Notes").write(0, 0, "none")
    return out.getvalue()


def dated_sheet() -> bytes:
    """A day, and a minute of it."""
    import xlsxwriter

    out = io.BytesIO()
    with xlsxwriter.Workbook(out, {"default_date_format": "yyyy-mm-dd"}) as book:
        sheet = book.add_worksheet()
        sheet.write(0, 0, datetime.datetime(2024, 1, 2))
        sheet.write(0, 1, datetime.datetime(2024, 1, 2, 15, 4))
    return out.getvalue()


_OOXML = (
    'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
    'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math" '
    'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
)
_ODF = (
    'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
    'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" '
    'xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" '
    'xmlns:style="urn:oasis:names:tc:opendocument:xmlns:style:1.0" '
    'xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0" '
    'xmlns:presentation="urn:oasis:names:tc:opendocument:xmlns:presentation:1.0"'
)


def opendocument(
    kind: str, body: str, objects: dict[str, bytes | str] | None = None, styles: str = ""
) -> bytes:
    """A document of one kind.

    Args:
        kind: "text", "presentation" or "spreadsheet".
        body: the XML inside it.
        objects: more files of the package.
        styles: the XML of its styles.
    """
    content = (
        f'<?xml version="1.0"?><office:document-content {_ODF}>'
        f"<office:automatic-styles>{styles}</office:automatic-styles><office:body>"
        f"<office:{kind}>{body}</office:{kind}></office:body></office:document-content>"
    )
    return zipped(
        {
            "mimetype": f"application/vnd.oasis.opendocument.{kind}",
            "content.xml": content,
            "META-INF/manifest.xml": "<manifest/>",
            **(objects or {}),
        }
    )


def book() -> bytes:
    chapter = "<html><body><h1>{0}</h1><p>{1}</p></body></html>"
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": '<container><rootfiles><rootfile full-path="o/b.opf"/>'
            "</rootfiles></container>",
            "o/b.opf": '<package><manifest><item id="a" href="one.xhtml"/>'
            '<item id="b" href="two%20b.xhtml"/></manifest><spine><itemref idref="b"/>'
            '<itemref idref="a"/></spine></package>',
            "o/one.xhtml": chapter.format("Ending", "They went home."),
            "o/two b.xhtml": chapter.format("Beginning", "It was a dark night."),
        }
    )


def notebook() -> bytes:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "words"], "metadata": {}},
        {
            "cell_type": "code",
            "source": "print(1 + 1)",
            "outputs": [
                {"output_type": "stream", "text": ["2\n"]},
                {"output_type": "display_data", "data": {"image/png": "aGVsbG8="}},
            ],
        },
    ]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4}).encode()


MAIL = b"""From: Ann <ann@example.org>\r
To: bob@example.org\r
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r
MIME-Version: 1.0\r
Content-Type: multipart/mixed; boundary=x\r
\r
--x\r
Content-Type: text/html; charset=utf-8\r
\r
<p>See you <b>at noon</b>.</p>\r
--x\r
Content-Type: application/pdf\r
Content-Disposition: attachment; filename="plan.pdf"\r
\r
zzz\r
--x--\r
"""


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
