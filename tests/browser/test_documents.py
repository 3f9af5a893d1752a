"""Choosing from documents on the page: folders, parts, passwords, put back, paste, citations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from tests.browser.conftest import Site
from tests.browser.test_page import TOKENS, drop_by_chooser, limit_answers, wait_for_tokens
from tests.documents import make
from tests.documents.test_pdf import body


def test_parts_can_be_unticked_seen_and_searched(page: Any, tmp_path: Path) -> None:
    path = make.write(tmp_path, "manual.pdf", make.pdf([body(n) for n in range(6)]))
    drop_by_chooser(page, path)
    wait_for_tokens(page)
    before = page.inner_text("#documents .facts")
    page.click("#documents .choice > summary")
    expect(page.locator("#documents .part")).to_have_count(6, timeout=10_000)
    expect(page.locator("#documents .part small").first).to_have_text(
        re.compile(r"^\d+ tokens, \d\.\d %$")
    )
    expect(page.locator("#documents .group summary > span")).to_have_text("All pages")
    tick = page.locator("#documents .part input").first
    # The browser's own box: one drawn by hand looked the same ticked and unticked.
    appearance = "element => getComputedStyle(element).appearance"
    assert tick.evaluate(appearance) == "auto"
    assert page.locator("#documents .controls select").evaluate(appearance) == "auto"
    tick.uncheck()
    expect(page.locator("#documents .facts")).to_contain_text("1 unticked")
    assert page.inner_text("#documents .facts") != before
    pages = page.locator("#documents input[placeholder^='Keep pages']")
    pages.fill("2-3, 6")
    pages.press("Enter")
    expect(page.locator("#documents .facts")).to_contain_text("3 unticked")
    search = page.locator("#documents input[placeholder^='Search']")
    search.fill("line 4.2")
    search.press("Enter")
    expect(page.locator("#documents .hits")).to_contain_text("1 found")
    page.click("#documents .hits button")
    expect(page.locator("#viewer .places mark")).to_have_count(1)
    page.get_by_role("tab", name="What the model sees").click()
    expect(page.locator("#viewer .text mark")).to_have_text("line 4.2")
    expect(page.locator("#viewer .label")).to_have_text("p. 5")
    page.get_by_role("button", name="Leave this part out").click()
    expect(page.locator("#documents .facts")).to_contain_text("unticked")


def test_a_password_is_asked_for(page: Any, tmp_path: Path) -> None:
    import pypdf

    writer = pypdf.PdfWriter(clone_from=make.write(tmp_path, "plain.pdf", make.pdf([body(1)])))
    writer.encrypt("sesame", algorithm="RC4-128")
    writer.write(tmp_path / "locked.pdf")
    drop_by_chooser(page, tmp_path / "locked.pdf")
    expect(page.locator("#documents .error")).to_contain_text("locked with a password")
    page.fill("#documents input[type=password]", "sesame")
    page.press("#documents input[type=password]", "Enter")
    wait_for_tokens(page)


def test_left_out_files_are_put_back(page: Any, tmp_path: Path) -> None:
    files = {"a.py": "x = 1\n", "yarn.lock": "lock\n"}
    drop_by_chooser(page, make.write(tmp_path, "code.zip", make.zipped(dict(files))))
    wait_for_tokens(page)
    expect(page.locator("#documents .facts")).to_have_text(re.compile("^1 file"))
    page.click("#documents .receipt > summary")
    page.get_by_label("Put yarn.lock back").click()
    expect(page.locator("#documents .facts")).to_have_text(
        re.compile(r"^2 files · " + TOKENS.pattern), timeout=10_000
    )


def test_a_path_of_this_machine_and_a_long_paste(page: Any, site: Site, tmp_path: Path) -> None:
    path = make.write(tmp_path, "here.md", b"# Words here\n")
    field = page.locator("#drop .open-path input")
    field.fill(str(path))
    field.press("Enter")
    wait_for_tokens(page)
    expect(page.locator("#documents .head b")).to_have_text("here.md")
    page.evaluate(
        """() => { const data = new DataTransfer();
        data.setData('text/plain', 'word '.repeat(1000));
        document.querySelector('#question textarea').dispatchEvent(new ClipboardEvent(
            'paste', {clipboardData: data, bubbles: true, cancelable: true})) }"""
    )
    expect(page.locator("#documents .head b").last).to_have_text("Pasted text 1.txt")
    expect(page.locator("#question textarea")).to_have_value("")
    page.get_by_label("Move Pasted text 1.txt up").click()
    expect(page.locator("#documents .head b").first).to_have_text("Pasted text 1.txt")
    assert path.exists()


def test_too_much_says_what_to_untick_and_offers_the_best_parts(
    page: Any, site: Site, tmp_path: Path
) -> None:
    pages = [[*body(n), make.Text(72, 300, f"harbour number {n}")] for n in range(120)]
    drop_by_chooser(page, make.write(tmp_path, "long.pdf", make.pdf(pages)))
    wait_for_tokens(page)
    expect(page.locator("#documents .advice")).to_contain_text("Untick parts, such as p.")
    page.check("#documents .advice input")
    page.wait_for_function("document.querySelector('#documents .fit').checked")
    # Room for a long answer leaves little to read.
    limit_answers(page, 7300)
    page.fill("#question textarea", "Where is harbour 77?")
    page.click("#send")
    expect(page.locator("#live .answer")).not_to_be_empty(timeout=60_000)
    page.click("#stop")
    expect(page.locator("#history .notice")).to_contain_text(
        "parts were read: those that match the question best"
    )


def test_citations_are_shown_and_open_their_page(page: Any, site: Site, tmp_path: Path) -> None:
    path = make.write(tmp_path, "manual.pdf", make.pdf([body(n) for n in range(3)]))
    drop_by_chooser(page, path)
    wait_for_tokens(page)
    from app.citations import find_citations
    from app.conversation import Answered
    from app.prompt import Turn

    answer = "It says “alpha beta gamma delta” [p. 1], and “never said at all there”."
    (document,) = site.workspace.shelf.chosen()
    citations = tuple(find_citations(answer, [document.document]))
    chat = site.workspace.conversations.newest
    site.workspace.conversations.append(
        chat.id, Answered(Turn("?", (1,), answer), "", "", citations)
    )
    site.workspace._touch()
    box = page.locator("#live .citations")
    expect(box).to_contain_text("found on p. 1 of manual.pdf")
    expect(box.locator("li.bad")).to_contain_text("not found in the document")
    box.locator("button").first.click()
    page.get_by_role("tab", name="What the model sees").click()
    expect(page.locator("#viewer .text mark")).to_have_text("alpha beta gamma delta")
