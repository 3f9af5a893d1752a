"""Choosing from documents on the page: folders, parts, passwords, put back, paste, citations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from tests.browser.actions import (
    TOKENS,
    drop_by_chooser,
    limit_answers,
    stop_if_running,
    wait_for_tokens,
    wait_for_words,
)
from tests.browser.conftest import Site, put_answer
from tests.documents import make
from tests.documents.bodies import body


def rows(page: Any) -> Any:
    return page.locator("#tree [role=treeitem]")


def test_parts_can_be_unticked_seen_and_searched(page: Any, tmp_path: Path) -> None:
    path = make.write(tmp_path, "manual.pdf", make.pdf([body(n) for n in range(6)]))
    drop_by_chooser(page, path)
    wait_for_tokens(page)
    before = page.inner_text("#documents .facts")
    expect(rows(page)).to_have_count(7, timeout=180_000)
    expect(rows(page).nth(1)).to_have_attribute(
        "aria-label", re.compile(r"^p\. 1, \d+ tokens, \d\.\d %$")
    )
    expect(rows(page).first).to_have_attribute("aria-checked", "true")
    rows(page).nth(1).locator(".tick").click()
    expect(page.locator("#documents .facts")).to_contain_text("1 unticked")
    expect(rows(page).nth(1)).to_have_attribute("aria-checked", "false")
    expect(rows(page).first).to_have_attribute("aria-checked", "mixed")
    assert page.inner_text("#documents .facts") != before
    pages = page.get_by_label("Keep pages")
    pages.fill("2-3, 6")
    pages.press("Enter")
    expect(page.locator("#documents .facts")).to_contain_text("3 unticked")
    expect(rows(page).nth(2)).to_have_attribute("aria-checked", "true")
    search = page.get_by_label("Search the parts")
    search.fill("line 4.2")
    search.press("Enter")
    expect(page.locator("#documents .hits")).to_contain_text("1 found")
    page.click("#documents .hits button")
    expect(page.locator("#viewer .label")).to_have_text("p. 5")
    page.get_by_role("tab", name="What the model sees").click()
    expect(page.locator("#viewer .text mark")).to_have_text("line 4.2")
    page.get_by_text("Put this part back").click()
    expect(page.locator("#documents .facts")).to_contain_text("2 unticked")
    expect(page.get_by_text("Leave this part out")).to_be_visible()


def test_the_tree_is_usable_by_keyboard(page: Any, tmp_path: Path) -> None:
    files = {f"p/{folder}/{n}.py": "x = 1\n" for folder in ("a", "b") for n in range(3)}
    drop_by_chooser(page, make.write(tmp_path, "code.zip", make.zipped(dict(files))))
    wait_for_tokens(page)
    expect(rows(page)).to_have_count(3, timeout=180_000)
    focused = page.locator("#tree :focus")
    # One stop for the Tab key, whatever the number of rows.
    expect(page.locator("#tree [tabindex='0']")).to_have_count(1)
    rows(page).first.focus()
    page.keyboard.press("ArrowDown")
    expect(focused).to_have_attribute("aria-label", re.compile("^a/, "))
    expect(focused).to_have_attribute("aria-level", "2")
    page.keyboard.press("ArrowRight")
    expect(focused).to_have_attribute("aria-expanded", "true")
    expect(rows(page)).to_have_count(6)
    page.keyboard.press("ArrowRight")
    expect(focused).to_have_attribute("aria-label", re.compile(r"^0\.py, "))
    page.keyboard.press("ArrowLeft")
    page.keyboard.press(" ")
    expect(page.locator("#documents .facts")).to_contain_text("3 unticked")
    expect(focused).to_have_attribute("aria-checked", "false")
    page.keyboard.press("ArrowLeft")
    expect(rows(page)).to_have_count(3)
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    expect(page.locator("#viewer .label")).to_have_text("b/2.py")
    expect(page.locator("#viewer .code .lines")).to_have_text(re.compile("^1"))
    page.keyboard.press("Escape")
    expect(page.locator("#viewer .card")).to_be_hidden()
    expect(focused).to_have_attribute("aria-label", re.compile(r"^2\.py, "))


def test_chapters_hold_their_pages(page: Any, tmp_path: Path) -> None:
    import pypdf

    plain = make.write(tmp_path, "plain.pdf", make.pdf([body(n) for n in range(5)]))
    writer = pypdf.PdfWriter(clone_from=plain)
    first = writer.add_outline_item(title="First <b>part</b>", page_number=1)
    writer.add_outline_item(title="A detail", page_number=2, parent=first)
    writer.add_outline_item(title="Second part", page_number=3)
    writer.write(tmp_path / "book.pdf")
    drop_by_chooser(page, tmp_path / "book.pdf")
    wait_for_tokens(page)
    titles = page.locator("#tree .title")
    expect(titles).to_have_text(["book.pdf", "p. 1", "First <b>part</b>", "Second part"])
    rows(page).nth(2).click()
    expect(titles).to_have_text(
        ["book.pdf", "p. 1", "First <b>part</b>", "p. 2", "A detail", "Second part"]
    )
    rows(page).nth(2).locator(".tick").click()
    expect(page.locator("#documents .facts")).to_contain_text("2 unticked")


def test_a_folder_of_many_files_draws_what_is_in_sight(page: Any, tmp_path: Path) -> None:
    files = {f"p/d{n % 40}/f{n}.txt": "a word\n" for n in range(6000)}
    drop_by_chooser(page, make.write(tmp_path, "many.zip", make.zipped(dict(files))))
    expect(page.locator("#documents .facts").last).to_have_text(TOKENS, timeout=180_000)
    expect(rows(page)).not_to_have_count(0, timeout=180_000)
    rows(page).nth(1).click()
    assert rows(page).count() < 60
    rows(page).first.focus()
    page.evaluate("window.began = performance.now()")
    page.keyboard.press("End")
    page.keyboard.press("Home")
    page.keyboard.press(" ")
    took = page.evaluate(
        "new Promise(done => requestAnimationFrame(() => done(performance.now() - window.began)))"
    )
    assert took < 2000
    expect(page.locator("#drop .upload")).to_contain_text("Nothing would be left of many.zip")
    page.fill("#question textarea", "still quick")
    expect(page.locator("#question textarea")).to_have_value("still quick")


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
    expect(page.locator("#documents .receipt li")).to_have_count(1)
    page.get_by_label("Put yarn.lock back").click()
    expect(page.locator("#documents .facts")).to_have_text(
        re.compile(r"^2 files · " + TOKENS.pattern), timeout=180_000
    )


def test_all_that_was_left_out_can_be_seen(page: Any, tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {f"p/f{n:03}.png": b"\x89PNG\0\0" for n in range(230)}
    files["p/a.py"] = "x = 1\n"
    drop_by_chooser(page, make.write(tmp_path, "code.zip", make.zipped(files)))
    wait_for_tokens(page)
    page.click("#documents .receipt > summary")
    expect(page.locator("#documents .receipt li")).to_have_count(200)
    page.get_by_text("Show 30 more").click()
    expect(page.locator("#documents .receipt li")).to_have_count(230)
    expect(page.get_by_text("Show 30 more")).to_have_count(0)


def test_patterns_choose_files_and_switches_the_text_of_pages(page: Any, tmp_path: Path) -> None:
    files = {"p/a.py": "x = 1\n", "p/b.md": "# b\n", "p/tests/c.py": "y = 2\n"}
    drop_by_chooser(page, make.write(tmp_path, "code.zip", make.zipped(dict(files))))
    wait_for_tokens(page)
    page.click("#documents .how > summary")
    only = page.get_by_label("Only these files")
    only.fill("*.py")
    only.press("Enter")
    expect(page.locator("#documents .facts")).to_have_text(re.compile("^2 files · .* tokens"))
    none = page.get_by_label("Not these files")
    none.fill("tests/**")
    none.press("Enter")
    expect(page.locator("#documents .facts")).to_have_text(re.compile("^1 file · .* tokens"))
    expect(page.get_by_label("Only these files")).to_have_value("*.py")
    running = [[*body(n), make.Text(72, 760, f"Manual of harbours {n}")] for n in range(8)]
    drop_by_chooser(page, make.write(tmp_path, "long.pdf", make.pdf(running)))
    facts = page.locator("#documents .facts").last
    expect(facts).to_have_text(re.compile("^8 pages · .* tokens"))
    before = facts.inner_text()
    page.click("#documents li:last-child .how > summary")
    page.get_by_label("Leave out repeated headers and footers").uncheck()
    expect(facts).not_to_have_text(before)
    expect(facts).to_have_text(re.compile("^8 pages · .* tokens"))


def test_a_limit_is_raised_by_a_click(page: Any, site: Site, tmp_path: Path) -> None:
    from dataclasses import replace

    document_list = site.workspace.documents
    limits = document_list._limits
    document_list._limits = replace(limits, pages=2)
    try:
        path = make.write(tmp_path, "manual.pdf", make.pdf([body(n) for n in range(3)]))
        drop_by_chooser(page, path)
        expect(page.locator("#documents .error")).to_contain_text("--limit pages=N")
        page.get_by_text("Read it anyway").click()
        wait_for_tokens(page)
    finally:
        document_list._limits = limits


def test_a_path_of_this_machine_and_a_long_paste(page: Any, site: Site, tmp_path: Path) -> None:
    path = make.write(tmp_path, "here.md", b"# Words here\n")
    field = page.locator("#drop .open-path input")
    field.fill(str(path))
    field.press("Enter")
    wait_for_tokens(page)
    expect(page.locator("#documents .rows .name")).to_have_text("here.md")
    page.evaluate(
        """() => { const data = new DataTransfer();
        data.setData('text/plain', 'word '.repeat(1000));
        document.querySelector('#question textarea').dispatchEvent(new ClipboardEvent(
            'paste', {clipboardData: data, bubbles: true, cancelable: true})) }"""
    )
    expect(page.locator("#documents .rows .name").last).to_have_text("Pasted text 1.txt")
    expect(page.locator("#question textarea")).to_have_value("")
    page.get_by_label("Move Pasted text 1.txt up").click()
    names = page.locator("#documents .rows .name")
    expect(names).to_have_text(["Pasted text 1.txt", "here.md"])
    # By drag as well: the first one below the last.
    last = page.locator("#documents .rows > li[data-id]").last.bounding_box()
    page.drag_and_drop(
        "#documents .rows > li:first-child .name",
        "#documents .rows > li[data-id]:last-of-type",
        target_position={"x": 40, "y": last["height"] - 6},
    )
    expect(names).to_have_text(["here.md", "Pasted text 1.txt"])
    expect(page.locator("#documents .rows .here")).to_have_count(0)
    assert path.exists()


def test_too_much_says_what_to_untick_and_offers_the_best_parts(
    page: Any, site: Site, tmp_path: Path
) -> None:
    pages = [[*body(n), make.Text(72, 300, f"harbour number {n}")] for n in range(120)]
    drop_by_chooser(page, make.write(tmp_path, "long.pdf", make.pdf(pages)))
    wait_for_tokens(page)
    expect(page.locator("#documents .advice")).to_contain_text("The largest: p.")
    page.check("#documents .advice input")
    page.wait_for_function("document.querySelector('#documents .fit').checked")
    # Room for a long answer leaves little to read.
    limit_answers(page, 7300)
    # The price is that of what would be sent, not of the whole document.
    expect(page.locator("#forecast .headline")).to_have_text("Up to 892 tokens")
    expect(page.locator("#forecast .sentence")).to_contain_text("best match your question are sent")
    page.fill("#question textarea", "Where is harbour 77?")
    page.click("#send")
    wait_for_words(page)
    stop_if_running(page)
    expect(page.locator("#history .notice")).to_contain_text(
        "parts were read: those that match the question best"
    )


def test_citations_are_shown_and_open_their_page(page: Any, site: Site, tmp_path: Path) -> None:
    path = make.write(tmp_path, "manual.pdf", make.pdf([body(n) for n in range(3)]))
    drop_by_chooser(page, path)
    wait_for_tokens(page)
    put_answer(site, "It says “alpha beta gamma delta” [p. 1], and “never said at all there”.")
    box = page.locator("#live .citations")
    expect(box).to_contain_text("found on p. 1 of manual.pdf")
    expect(box.locator("li.bad")).to_contain_text("not found in the document")
    box.locator("button").first.click()
    expect(page.locator("#viewer .label")).to_have_text("p. 1")
    place = page.locator("#viewer .places mark")
    expect(place).to_have_count(1)
    around, mark = page.locator("#viewer img").bounding_box(), place.bounding_box()
    assert around["x"] < mark["x"] < mark["x"] + mark["width"] < around["x"] + around["width"]
