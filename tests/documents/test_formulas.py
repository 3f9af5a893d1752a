"""Formulas and powers of office files and web pages: as a line of text that means the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from app.documents import read
from app.documents.formats.html import html_to_text
from app.documents.formats.office.formulas import OMML, math_formula, word_formula
from tests.documents import make


@pytest.mark.parametrize(
    ("xml", "text"),
    [
        ("<m:r><m:t>E=</m:t></m:r>", "E="),
        ("<m:sSup><m:e><m:t>c</m:t></m:e><m:sup><m:t>2</m:t></m:sup></m:sSup>", "c^2"),
        ("<m:sSub><m:e><m:t>a</m:t></m:e><m:sub><m:t>n+1</m:t></m:sub></m:sSub>", "a_(n+1)"),
        ("<m:f><m:num><m:t>a+b</m:t></m:num><m:den><m:t>2</m:t></m:den></m:f>", "(a+b)/2"),
        ("<m:rad><m:e><m:t>2</m:t></m:e></m:rad>", "√(2)"),
        (
            '<m:nary><m:naryPr><m:chr m:val="∑"/></m:naryPr><m:sub><m:t>i</m:t></m:sub>'
            "<m:sup><m:t>n</m:t></m:sup><m:e><m:t>x</m:t></m:e></m:nary>",
            "∑_i^nx",
        ),
        ("<m:nary><m:e><m:t>x</m:t></m:e></m:nary>", "∫x"),
        ("<m:d><m:e><m:t>x</m:t></m:e><m:e><m:t>y</m:t></m:e></m:d>", "(x,y)"),
        ('<m:d><m:dPr><m:begChr m:val="["/><m:endChr m:val=""/></m:dPr><m:e/></m:d>', "["),
    ],
)
def test_formulas_of_word(xml: str, text: str) -> None:
    root = etree.fromstring(f'<m:oMath xmlns:m="{OMML[1:-1]}">{xml}<!-- no text --></m:oMath>')
    assert word_formula(root) == text


@pytest.mark.parametrize(
    ("xml", "text"),
    [
        ("<mi>m</mi> <msup><mi>c</mi><mn>2</mn></msup>", "mc^2"),
        ("<msub><mi>a</mi><mrow><mi>n</mi><mo>+</mo><mn>1</mn></mrow></msub>", "a_(n+1)"),
        ("<mfrac><mrow><mi>a</mi><mi>b</mi></mrow><mn>2</mn></mfrac>", "(ab)/2"),
        ("<msqrt><mn>1</mn><mn>2</mn></msqrt>", "√(12)"),
        ("<munderover><mo>∑</mo><mn>0</mn><mi>n</mi></munderover>", "∑_0^n"),
        ("<semantics><mi>x</mi><annotation>x in TeX</annotation></semantics>", "x"),
        # Broken: still every letter of it.
        ("<msup><mi>c</mi></msup><!-- no text -->", "c"),
    ],
)
def test_formulas_in_mathml(xml: str, text: str) -> None:
    assert math_formula(etree.fromstring(f"<math>{xml}</math>")) == text


def test_a_formula_of_opendocument_lies_in_a_file_of_its_own(tmp_path: Path) -> None:
    drawn = (
        '<draw:frame><draw:object xmlns:x="http://www.w3.org/1999/xlink" x:href="./{0}"/>'
        "</draw:frame>"
    )
    body = f"<text:p>So {drawn.format('Object 1')} holds.{drawn.format('Chart')}</text:p>"
    math = '<math xmlns="http://www.w3.org/1998/Math/MathML"><mi>a</mi><mo>=</mo><mn>1</mn></math>'
    objects = {"Object 1/content.xml": math, "Chart/content.xml": "<chart>7</chart>"}
    path = make.write(tmp_path, "a.odt", make.opendocument("text", body, objects))
    assert read(path).sections[0].text == "So a=1 holds."


def test_a_power_is_no_longer_number(tmp_path: Path) -> None:
    raised = '<w:r><w:rPr><w:vertAlign w:val="superscript"/></w:rPr><w:t>6</w:t></w:r>'
    word = make.word(f"<w:r><w:t>10</w:t></w:r>{raised}")
    assert read(make.write(tmp_path, "a.docx", word)).sections[-1].text.endswith("\n10^6")
    styles = (
        '<style:style style:name="T1"><style:text-properties style:text-position="super 58%"/>'
        "</style:style>"
    )
    body = '<text:p>10<text:span text:style-name="T1">6</text:span>, '
    body += '<text:span text:style-name="T2">7</text:span></text:p>'
    odt = make.opendocument("text", body, styles=styles)
    assert read(make.write(tmp_path, "a.odt", odt)).sections[0].text == "10^6, 7"
    slides = make.slides(raised="6")
    assert "\n10^6\nsecond line" in read(make.write(tmp_path, "a.pptx", slides)).sections[0].text
    page = "<p>10<sup>6</sup>, H<sub>2</sub>O, <SUP class='a'>th</SUP><sup></sup></p>"
    assert html_to_text(page) == "10^6, H2O, ^th"


def test_a_web_page_says_what_it_says() -> None:
    """Without what Markdown would need to be drawn as the page: a quotation is word for word."""
    page = (
        r"<p>1. \int_0^1 x\,dx \\ \alpha</p><p># no heading</p><p>* no item</p><pre>a\,b</pre>"
        "<table><tr><td>a|b</td><td>c</td></tr></table>"
    )
    assert html_to_text(page) == (
        "1. \\int_0^1 x\\,dx \\\\ \\alpha\n\n# no heading\n\n* no item\n\n```\na\\,b\n```\n\n"
        "| a\\|b | c |\n| ---- | --- |"
    )
