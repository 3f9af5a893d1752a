"""The viewer beside the chat: pages as printed, quotations marked, text, code, hostile words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.actions import drop_by_chooser, wait_for_tokens
from tests.browser.conftest import Site
from tests.documents import make
from tests.documents.bodies import body

HOSTILE = '<script>window.bad=1</script><img src=x onerror="window.bad=1">'


@pytest.fixture
def manual(page: Any, tmp_path: Path) -> Any:
    """The page with a PDF of six pages, one of them opened at the words "line 4.2"."""
    drop_by_chooser(page, make.write(tmp_path, "manual.pdf", make.pdf([body(n) for n in range(6)])))
    wait_for_tokens(page)
    search = page.get_by_label("Search the parts")
    search.fill("line 4.2")
    search.press("Enter")
    page.click("#documents .hits button")
    expect(page.locator("#viewer .label")).to_have_text("p. 5")
    return page


def open_first(page: Any, path: Path) -> None:
    """Drops a document and opens its first part by the token map's keyboard."""
    drop_by_chooser(page, path)
    wait_for_tokens(page)
    page.locator("#map canvas").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#viewer .card")).to_be_visible()


def picture_is_drawn(page: Any) -> None:
    page.wait_for_function("document.querySelector('#viewer img').naturalWidth > 300")


def test_a_quotation_is_boxed_on_its_page(manual: Any) -> None:
    picture_is_drawn(manual)
    box = manual.locator("#viewer .places mark")
    expect(box).to_have_count(1)
    sheet = manual.locator("#viewer .page").bounding_box()
    place = box.bounding_box()
    # The third of the lines that begin 92 of the 792 points below the upper edge, in the left half.
    top = (place["y"] + place["height"] / 2 - sheet["y"]) / sheet["height"]
    assert (792 - 700 + 2 * 14 - 12) / 792 < top < (792 - 700 + 2 * 14 + 6) / 792
    assert place["width"] < 0.2 * sheet["width"]
    # What lies under the box was drawn there: dark letters on a light page.
    darkest = manual.evaluate(
        """() => {
        const image = document.querySelector('#viewer img');
        const mark = document.querySelector('#viewer .places mark');
        const canvas = document.createElement('canvas');
        canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
        const context = canvas.getContext('2d');
        context.drawImage(image, 0, 0);
        const wide = (name) => parseFloat(mark.style[name]) / 100 * canvas.width;
        const high = (name) => parseFloat(mark.style[name]) / 100 * canvas.height;
        const part = context.getImageData(
            wide('left'), high('top'), wide('width'), high('height')).data;
        return Math.min(...part.filter((_, n) => n % 4 === 0)) }"""
    )
    assert darkest < 100


def test_the_text_that_the_model_sees_with_the_quotation(manual: Any) -> None:
    manual.get_by_role("tab", name="What the model sees").click()
    expect(manual.locator("#viewer .page")).to_be_hidden()
    expect(manual.locator("#viewer .text")).to_contain_text("line 4.7")
    expect(manual.locator("#viewer .text mark")).to_have_text("line 4.2")
    manual.get_by_role("tab", name="Page").click()
    picture_is_drawn(manual)


def test_pages_are_turned(manual: Any) -> None:
    label = manual.locator("#viewer .label")
    manual.get_by_label("Next part").click()
    expect(label).to_have_text("p. 6")
    expect(manual.get_by_label("Next part")).to_be_disabled()
    manual.get_by_label("Previous part").click()
    expect(label).to_have_text("p. 5")
    number = manual.get_by_label("Go to part number")
    number.fill("1")
    number.press("Enter")
    expect(label).to_have_text("p. 1")
    expect(manual.get_by_label("Previous part")).to_be_disabled()
    number.fill("600")
    number.press("Enter")
    expect(label).to_have_text(re.compile(r"p\. [16]$"))
    number.fill("2")
    number.press("Enter")
    expect(label).to_have_text("p. 2")
    manual.locator("#viewer .sheet").focus()
    manual.keyboard.press("ArrowRight")
    expect(label).to_have_text("p. 3")
    manual.keyboard.press("PageUp")
    expect(label).to_have_text("p. 2")


def test_the_page_is_made_larger(manual: Any) -> None:
    picture_is_drawn(manual)
    before = manual.locator("#viewer .page").bounding_box()["width"]
    manual.get_by_label("Larger").click()
    assert manual.locator("#viewer .page").bounding_box()["width"] > 1.2 * before
    manual.get_by_label("Smaller").click()
    assert abs(manual.locator("#viewer .page").bounding_box()["width"] - before) < 2


def test_one_page_is_read_by_another_extractor(manual: Any, site: Site) -> None:
    manual.get_by_label("Extractor for this page").select_option("pypdf")
    expect(manual.locator("#viewer .doubt")).to_contain_text("read by pypdf")
    expect(manual.locator("#viewer .label")).to_have_text("p. 5")
    expect(manual.locator("#viewer .text mark")).to_have_text("line 4.2")
    manual.get_by_label("Next part").click()
    expect(manual.locator("#viewer .label")).to_have_text("p. 6")
    expect(manual.locator("#viewer .doubt")).to_be_hidden()
    expect(manual.get_by_label("Extractor for this page")).to_have_value("pdfium")


def test_a_part_is_left_out_and_put_in(manual: Any) -> None:
    facts = manual.locator("#documents .facts")
    manual.get_by_role("button", name="Leave this part out").click()
    expect(facts).to_contain_text("1 unticked")
    manual.get_by_role("button", name="Put this part back").click()
    expect(facts).not_to_contain_text("unticked")
    expect(manual.get_by_role("button", name="Leave this part out")).to_be_visible()


def test_escape_closes_and_gives_the_focus_back(page: Any, tmp_path: Path) -> None:
    open_first(page, make.write(tmp_path, "m.pdf", make.pdf([body(n) for n in range(3)])))
    expect(page.locator("#viewer .card")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()
    expect(page.locator("#map canvas")).to_be_focused()
    page.keyboard.press("Enter")
    page.locator("#viewer").get_by_label("Close").click()
    expect(page.locator("#map canvas")).to_be_focused()


def test_code_has_line_numbers_and_colours(page: Any, tmp_path: Path) -> None:
    source = f'# It says {HOSTILE}\ndef greet(name):\n    return "hello " + name\n'
    open_first(page, make.write(tmp_path, "greet.py", source.encode()))
    text = page.locator("#viewer .text")
    expect(text.locator(".lines")).to_contain_text(re.compile(r"1\s+2\s+3"))
    expect(text.locator(".comment").first).to_contain_text(HOSTILE)
    expect(text.locator(".keyword").first).to_have_text("def")
    expect(text.locator(".name").first).to_have_text("greet")
    assert text.locator("code").last.inner_text().rstrip() == source.rstrip()
    # A line's number stands beside it.
    lines, code = (text.locator("code").nth(n).bounding_box() for n in (0, 1))
    assert abs(lines["y"] - code["y"]) < 2
    assert page.evaluate("window.bad") is None


def test_hostile_words_show_as_words(page: Any, tmp_path: Path) -> None:
    pages = [[make.Text(72, 700, HOSTILE.replace('"', "'"))], body(1)]
    name = "<img src=x onerror=window.bad=1>.pdf"
    open_first(page, make.write(tmp_path, name, make.pdf(pages)))
    picture_is_drawn(page)
    expect(page.locator("#viewer .document")).to_have_text(name)
    page.get_by_role("tab", name="What the model sees").click()
    expect(page.locator("#viewer .text")).to_contain_text("<script>window.bad=1</script>")
    page.locator("#map canvas").hover()
    expect(page.locator("#map .tip")).to_contain_text("tokens")
    assert page.locator("#viewer :is(script, .text img), #map img, #documents img").count() == 0
    assert page.evaluate("window.bad") is None


@pytest.mark.parametrize("width", [390, 1024])
def test_the_viewer_covers_small_screens(page: Any, tmp_path: Path, width: int) -> None:
    open_first(page, make.write(tmp_path, "m.pdf", make.pdf([body(n) for n in range(3)])))
    page.set_viewport_size({"width": width, "height": 844})
    box = page.locator("#viewer .card").bounding_box()
    assert box["width"] > 0.9 * width
    assert box["height"] > 0.9 * 844
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    expect(page.locator("#viewer").get_by_label("Close")).to_be_in_viewport()
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()
