"""Several chats on one document: begin, name, delete, save, edit, answer again, pause, wait."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from tests.browser.actions import (
    ask,
    drop_by_chooser,
    limit_answers,
    long_document,
    stop_if_running,
    wait_for_tokens,
    wait_for_words,
    wait_until_idle,
)
from tests.browser.conftest import Site, open_page


def test_two_chats_on_one_document(page: Any, samples: Path) -> None:
    limit_answers(page, 8)
    drop_by_chooser(page, samples / "observatory-handbook.pdf")
    wait_for_tokens(page)
    ask(page, "Who built the observatory?")
    wait_until_idle(page)
    expect(page.locator("#history .figures")).to_have_count(1)
    page.click("#new")
    expect(page.locator("#history .figures")).to_have_count(0)
    expect(page.locator("#live .welcome")).to_be_visible()
    ask(page, "How tall is it?")
    wait_until_idle(page)
    # The document was read once.
    expect(page.locator("#history .figures")).to_contain_text(", reused")
    names = page.locator("#chats li > button")
    expect(names).to_have_text(["How tall is it?", "Who built the observatory?"])
    names.last.click()
    expect(page.locator("#history")).to_contain_text("Who built the observatory?")
    expect(page.locator("#history")).not_to_contain_text("How tall is it?")
    page.reload()
    expect(page.locator("#history")).to_contain_text("Who built the observatory?")


def test_a_chat_is_renamed_saved_and_deleted(page: Any) -> None:
    limit_answers(page, 5)
    ask(page, "Name a colour.")
    wait_until_idle(page)
    row = page.locator("#chats li").first
    row.hover()
    row.get_by_role("button", name="Rename Name a colour.").click()
    page.keyboard.type("Colours")
    page.keyboard.press("Enter")
    expect(page.locator("#chats li > button").first).to_have_text("Colours")
    with page.expect_download() as download:
        page.locator("#chats li").first.get_by_role("link", name="Save Colours").click()
    text = Path(download.value.path()).read_text()
    assert download.value.suggested_filename == "Colours.md"
    assert text.startswith("# Colours\n\n## Name a colour.\n")
    page.once("dialog", lambda dialog: dialog.accept())
    page.locator("#chats li").first.get_by_role("button", name="Delete Colours").click()
    expect(page.locator("#chats li > button")).to_have_text(["New chat"])
    expect(page.locator("#history .figures")).to_have_count(0)


def test_a_question_is_edited_and_answered_again(page: Any, site: Site) -> None:
    limit_answers(page, 4)
    for question in ("First *one*?", "Second?"):
        ask(page, question)
        wait_until_idle(page)
    expect(page.locator("#history .figures")).to_have_count(2)
    page.locator("#history a[href='#edit-0']").click()
    # As it was written, not as it is shown.
    expect(page.locator("#question textarea")).to_have_value("First *one*?")
    expect(page.locator("#progress .note")).to_contain_text("Editing question 1")
    page.keyboard.press("Escape")
    expect(page.locator("#question textarea")).to_have_value("")
    page.locator("#history a[href='#edit-0']").click()
    expect(page.locator("#progress .note")).to_contain_text("Editing question 1")
    page.fill("#question textarea", "Another one?")
    page.keyboard.press("Enter")
    expect(page.locator("#history")).to_contain_text("Another one?", timeout=180_000)
    wait_until_idle(page)
    turns = site.workspace.conversations.newest.turns
    assert [turn.question for turn in turns] == ["Another one?"]


def test_an_answer_is_given_again_and_copied(page: Any, site: Site) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    limit_answers(page, 4)
    ask(page, "Name a town.")
    wait_until_idle(page)
    before = site.workspace.conversations.newest.revision
    page.locator("#history a[href='#again-0']").click()
    while site.workspace.conversations.newest.revision == before:
        page.wait_for_timeout(50)
    wait_until_idle(page)
    chat = site.workspace.conversations.newest
    assert chat.revision == before + 1
    assert [turn.question for turn in chat.turns] == ["Name a town."]
    page.locator("#history a[href='#copy-0']").click()
    expect(page.locator("#history a[href='#copy-0']")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == chat.turns[0].answer


def test_reading_is_paused_and_goes_on(page: Any, tmp_path: Path, samples: Path) -> None:
    limit_answers(page, 4)
    drop_by_chooser(page, long_document(tmp_path, samples, copies=2))
    wait_for_tokens(page)
    ask(page, "When is honey ripe?")
    expect(page.locator("#progress .line")).to_contain_text("Reading", timeout=180_000)
    page.click("#pause")
    # A step under way is done first; from then on nothing moves.
    expect(page.locator("#progress .line")).to_contain_text(
        "Paused. Everything read so far is kept."
    )
    held = page.locator("#progress .bar").get_attribute("aria-valuenow")
    page.wait_for_timeout(600)
    assert page.locator("#progress .bar").get_attribute("aria-valuenow") == held
    page.click("#pause")
    expect(page.locator("#progress .line")).to_contain_text("Reading")
    wait_until_idle(page)
    expect(page.locator("#history .figures")).to_contain_text("tokens/s")


def test_an_answer_stays_until_there_is_another(page: Any, tmp_path: Path, samples: Path) -> None:
    limit_answers(page, 3)
    ask(page, "Name a colour.")
    wait_until_idle(page)
    expect(page.locator("#history .figures")).to_have_count(1)
    drop_by_chooser(page, long_document(tmp_path, samples))
    wait_for_tokens(page)
    for link, words in (("Answer again", ""), ("Edit", "Name a river.")):
        page.locator("#history .tools a", has_text=link).dispatch_event("click")
        if words:
            expect(page.locator("#progress .note")).to_contain_text("Editing question 1")
            ask(page, words)
        expect(page.locator("#live .asked")).to_have_text(words or "Name a colour.")
        expect(page.locator("#history .figures")).to_have_count(0)
        expect(page.locator("#progress .line")).to_contain_text("Reading")
        page.click("#stop")
        wait_until_idle(page)
        expect(page.locator("#history")).to_contain_text("Name a colour.")
        expect(page.locator("#history .figures")).to_have_count(1)
        expect(page.locator("#live .asked")).to_be_hidden()
        expect(page.locator("#question textarea")).to_have_value(words)
    # Still the edit that it was.
    expect(page.locator("#progress .note")).to_contain_text("Editing question 1")


def test_a_second_tab_waits_in_line(page: Any, site: Site) -> None:
    ask(page, "Write a long story about the sea.")
    expect(page.locator("#live .answer")).not_to_be_empty(timeout=180_000)
    other = page.context.new_page()
    open_page(other, site)
    other.click("#new")
    expect(other.locator("#live .welcome")).to_be_visible()
    ask(other, "And about the woods.")
    expect(other.locator("#progress .line")).to_have_text(
        "Waiting in line: one question is ahead of this one."
    )
    page.click("#stop")
    wait_for_words(other)
    stop_if_running(other)
    wait_until_idle(other)
    expect(page.locator("#history")).to_contain_text("sea")
    expect(other.locator("#history")).to_contain_text("woods")


def test_the_keyboard_is_enough(page: Any) -> None:
    limit_answers(page, 400)
    page.locator("#chat").click()
    page.keyboard.press("/")
    expect(page.locator("#question textarea")).to_be_focused()
    page.keyboard.type("Tell a story.")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("A long one.")
    expect(page.locator("#question textarea")).to_have_value("Tell a story.\nA long one.")
    page.keyboard.press("Enter")
    expect(page.locator("#live .answer")).not_to_be_empty(timeout=180_000)
    page.keyboard.press("Escape")
    expect(page.locator("#progress .line")).to_contain_text("The answer so far is kept")


def test_a_sample_is_at_hand(page: Any) -> None:
    page.locator("#live .samples button", has_text="observatory").click()
    wait_for_tokens(page)
    page.locator("#live .starters button").first.click()
    expect(page.locator("#question textarea")).to_have_value(re.compile("Summarise"))


def test_markdown_grows_as_markdown_and_loads_nothing(page: Any) -> None:
    page.evaluate(
        """async () => {
        const { liveMarkdown } = await import('./static/markdown.js');
        const place = document.createElement('div'); place.id = 'try'; document.body.append(place);
        const text = '# Title\\n\\n| a | b |\\n|---|---|\\n| 1 | 2 |\\n\\n'
          + '```py\\nx = "<b>"\\n```\\n'
          + '<img src=http://192.0.2.1/a.png onerror=bad()> '
          + '![x](http://192.0.2.1/b.png) [l](javascript:bad()) **done**\\n';
        const live = liveMarkdown(place);
        for (const piece of text.match(/[^]{1,3}/g)) live.write(piece);
        }"""
    )
    box = page.locator("#try")
    expect(box.locator("h1")).to_have_text("Title")
    expect(box.locator("td").first).to_have_text("1")
    expect(box.locator("pre code")).to_contain_text('x = "<b>"')
    expect(box).to_contain_text("<img src=http://192.0.2.1/a.png")
    assert box.locator("img").count() == 0
    assert box.locator("a[href]").count() == 0


def test_a_hidden_tab_says_that_it_is_still_there(page: Any, site: Site) -> None:
    """It has no stream, and its run in line must not give up its place."""
    page.clock.install()
    open_page(page, site)
    expect(page.locator("#live .welcome")).to_be_visible()
    chat = site.workspace.conversations.newest.id
    page.clock.fast_forward(61_000)
    page.evaluate(
        "Object.defineProperty(document, 'hidden', { get: () => true });"
        "document.dispatchEvent(new Event('visibilitychange'));"
    )
    with page.expect_response(f"**/chats/{chat}/watch") as told:
        page.clock.fast_forward(61_000)
    assert told.value.status == 204
