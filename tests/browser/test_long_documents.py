"""Thousands of pages on the page: quick to turn, few of them drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.actions import drop_by_chooser, wait_for_tokens
from tests.documents import make


@pytest.mark.slow
def test_two_thousand_pages_stay_quick(page: Any, tmp_path: Path) -> None:
    pages = [[make.Text(72, 700, f"Page of number {n}")] for n in range(2000)]
    drop_by_chooser(page, make.write(tmp_path, "long.pdf", make.pdf(pages)))
    wait_for_tokens(page)
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
