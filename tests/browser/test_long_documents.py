"""The viewer and the token map: what a person clicks, hostile text, thousands of pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.test_page import drop_by_chooser, wait_for_tokens
from tests.documents import make
from tests.documents.test_pdf import body

pytestmark = pytest.mark.slow
EVIL = "<img src=x onerror=window.bad=1><script>window.bad=2</script>"


def drop_pdf(page: Any, folder: Path, pages: list[list[make.Text]], name: str = "a.pdf") -> None:
    drop_by_chooser(page, make.write(folder, name, make.pdf(pages)))
    wait_for_tokens(page)


def test_the_map_tells_each_page_and_opens_it(page: Any, tmp_path: Path) -> None:
    path = make.write(tmp_path, "a.pdf", make.pdf([body(0), [], body(2)], picture_only=[1]))
    drop_by_chooser(page, path)
    wait_for_tokens(page)
    page.locator("#tree [role=treeitem]").nth(3).locator(".tick").click()
    strip = page.locator("#map canvas")
    expect(strip).to_be_visible()
    strip.focus()
    told = []
    for key in ("Home", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
        told.append(strip.get_attribute("aria-valuetext"))
    assert [re.sub(r"[\d,]+ tokens", "N", text or "") for text in told[:2]] == [
        "p. 1 · N · not read yet",
        "p. 2 · N · without text",
    ]
    expect(strip).to_have_attribute("aria-valuetext", re.compile("^p. 3 · .* · left out$"))
    page.keyboard.press("Enter")
    expect(page.locator("#viewer .label")).to_have_text("p. 3")
    page.keyboard.press("Escape")
    expect(page.locator("#viewer .card")).to_be_hidden()
    expect(strip).to_be_focused()
    strip.click(position={"x": 3, "y": 8})
    expect(page.locator("#viewer .label")).to_have_text("p. 1")
    page.wait_for_function("document.querySelector('#viewer img').naturalWidth > 300")


def test_hostile_text_and_names_show_as_text(page: Any, tmp_path: Path) -> None:
    name = "<img src=x onerror=window.bad=3>.pdf"
    drop_pdf(page, tmp_path, [[*body(0), make.Text(72, 300, EVIL)]], name)
    expect(page.locator("#documents .rows .name")).to_have_text(name)
    page.locator("#tree [role=treeitem]").first.click()
    expect(page.locator("#viewer .document")).to_have_text(name)
    page.get_by_role("tab", name="What the model sees").click()
    expect(page.locator("#viewer .text")).to_contain_text(EVIL)
    page.locator("#map canvas").hover()
    assert page.evaluate("window.bad") is None
    assert page.locator("#viewer img, #documents img").count() == 1


def test_another_extractor_for_one_page(page: Any, tmp_path: Path) -> None:
    drop_pdf(page, tmp_path, [body(n) for n in range(3)])
    page.locator("#tree [role=treeitem]").nth(2).click()
    expect(page.locator("#viewer .label")).to_have_text("p. 2")
    page.get_by_label("Extractor of this page").select_option("pypdf")
    expect(page.locator("#viewer .doubt")).to_contain_text("read by pypdf")
    expect(page.locator("#viewer .text")).to_contain_text("line 1.0")
    page.get_by_label("Next part").click()
    expect(page.locator("#viewer .label")).to_have_text("p. 3")
    expect(page.locator("#viewer .doubt")).not_to_contain_text("pypdf")


def test_two_thousand_pages_stay_quick(page: Any, tmp_path: Path) -> None:
    drop_pdf(page, tmp_path, [[make.Text(72, 700, f"Page of number {n}")] for n in range(2000)])
    strip = page.locator("#map canvas")
    expect(strip).to_be_visible()
    strip.focus()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    expect(page.locator("#viewer .total")).to_have_text("of 2,000")
    page.get_by_label("Go to part number").fill("1234")
    page.keyboard.press("Enter")
    expect(page.locator("#viewer .label")).to_have_text("p. 1234")
    # Groups of a hundred pages, and only those in sight.
    expect(page.locator("#tree .group")).not_to_have_count(0)
    assert page.locator("#tree [role=treeitem]").count() < 60
    assert page.evaluate("document.querySelectorAll('*').length") < 2000
    frames = """new Promise(done => { const began = performance.now(); let n = 0;
        const next = () => ++n < 10 ? requestAnimationFrame(next) : done(performance.now() - began);
        next() })"""
    assert page.evaluate(frames) < 2000
