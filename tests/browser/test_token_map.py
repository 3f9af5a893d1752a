"""The token map: what was read, what waits, where a click and a key lead."""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.actions import (
    ask,
    drop_by_chooser,
    limit_answers,
    wait_for_tokens,
    wait_until_idle,
)
from tests.browser.conftest import Site, put_answer
from tests.documents import make
from tests.documents.bodies import body

_UNREAD = count(100, 10)
WAITING, READ, EMPTY, LEFT_OUT = "not read yet", "read", "without text", "left out"

pytestmark = pytest.mark.slow


def manual(tmp_path: Path) -> Path:
    """Four pages, the third without text; never read before, for what was read stays known."""
    first = next(_UNREAD)
    pages = [body(first)[:3], body(first + 1)[:3], [], body(first + 2)[:3]]
    return make.write(tmp_path, "manual.pdf", make.pdf(pages, picture_only=[2]))


def states(page: Any, cells: int) -> list[str]:
    """What each cell of the only strip is, as a screen reader is told."""
    told = []
    canvas = page.locator("#map canvas")
    canvas.focus()
    page.keyboard.press("Home")
    for number in range(1, cells + 1):
        expect(canvas).to_have_attribute("aria-valuenow", str(number))
        expect(canvas).to_have_attribute("aria-valuetext", re.compile(rf"^p\. {number} · "))
        told.append(canvas.get_attribute("aria-valuetext").split(" · ")[-1])
        page.keyboard.press("ArrowRight")
    return told


def colours_at(page: Any, share: float) -> set[tuple[int, ...]]:
    """Different colours down the strip at a share of its width."""
    expect(page.locator("#map canvas")).to_be_visible()
    # It is drawn in the next frame.
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    column = page.evaluate(
        """(share) => { const canvas = document.querySelector('#map canvas');
        const context = canvas.getContext('2d'), x = Math.floor(share * canvas.width);
        return [...context.getImageData(x, 0, 1, canvas.height).data] }""",
        share,
    )
    return {tuple(column[n : n + 4]) for n in range(0, len(column), 4)}


def test_states_before_and_after_reading(page: Any, tmp_path: Path) -> None:
    drop_by_chooser(page, manual(tmp_path))
    wait_for_tokens(page)
    expect(page.locator("#map canvas")).to_have_attribute("aria-valuemax", "4")
    assert states(page, 4) == [WAITING, WAITING, EMPTY, WAITING]
    waiting = colours_at(page, 0.2)
    limit_answers(page, 4)
    ask(page, "Which line is last?")
    wait_until_idle(page)
    page.wait_for_function(
        """async () => { const canvas = document.querySelector('#map canvas');
        canvas.blur(); canvas.focus(); await new Promise((done) => setTimeout(done, 100));
        return / · read$/.test(canvas.getAttribute('aria-valuetext')) }""",
    )
    assert states(page, 4) == [READ, READ, EMPTY, READ]
    page.locator("#question textarea").focus()
    page.wait_for_timeout(100)
    assert colours_at(page, 0.2).isdisjoint(waiting)


def test_unticked_parts_are_left_out(page: Any, tmp_path: Path) -> None:
    drop_by_chooser(page, manual(tmp_path))
    wait_for_tokens(page)
    page.locator("#tree [role=treeitem]").nth(2).locator(".tick").click()
    expect(page.locator("#documents .facts")).to_contain_text("1 unticked")
    page.wait_for_timeout(600)
    assert states(page, 4) == [WAITING, LEFT_OUT, EMPTY, WAITING]


def test_a_click_opens_the_page_that_it_points_at(page: Any, tmp_path: Path) -> None:
    drop_by_chooser(page, manual(tmp_path))
    wait_for_tokens(page)
    canvas = page.locator("#map canvas")
    box = canvas.bounding_box()
    canvas.hover(position={"x": box["width"] - 8, "y": 8})
    expect(page.locator("#map .tip")).to_have_text(re.compile(r"^p\. 4 · \d+ tokens · not read"))
    canvas.click(position={"x": box["width"] - 8, "y": 8})
    expect(page.locator("#viewer .label")).to_have_text("p. 4")
    page.keyboard.press("Escape")
    canvas.click(position={"x": 8, "y": 8})
    expect(page.locator("#viewer .label")).to_have_text("p. 1")


def test_the_keyboard_walks_and_opens(page: Any, tmp_path: Path) -> None:
    drop_by_chooser(page, manual(tmp_path))
    wait_for_tokens(page)
    canvas = page.locator("#map canvas")
    canvas.focus()
    page.keyboard.press("End")
    expect(canvas).to_have_attribute("aria-valuenow", "4")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(canvas).to_have_attribute("aria-valuenow", "2")
    page.keyboard.press("Enter")
    expect(page.locator("#viewer .label")).to_have_text("p. 2")


def test_cited_pages_are_marked(page: Any, site: Site, tmp_path: Path) -> None:
    drop_by_chooser(page, manual(tmp_path))
    wait_for_tokens(page)
    before = colours_at(page, 0.1)
    put_answer(site, "It stands on [p. 1].")
    expect(page.locator("#live .citations")).to_contain_text("found on p. 1")
    page.wait_for_timeout(200)
    assert (0xF5, 0x9E, 0x0B, 255) in colours_at(page, 0.1) - before
    assert (0xF5, 0x9E, 0x0B, 255) not in colours_at(page, 0.9)


def test_each_document_has_a_strip(page: Any, tmp_path: Path, samples: Path) -> None:
    drop_by_chooser(page, manual(tmp_path))
    wait_for_tokens(page)
    drop_by_chooser(page, make.write(tmp_path, "two.md", b"# Two\n\nWords of another.\n"))
    expect(page.locator("#map .name")).to_have_text(["manual.pdf", "two.md"])
    page.get_by_label("Remove manual.pdf").click()
    expect(page.locator("#map .name")).to_have_text(["two.md"])
    page.get_by_label("Remove two.md").click()
    expect(page.locator("#map")).to_be_hidden()
