"""The page does what a person does with it: drop, read, ask, stop, reload, change settings."""

from __future__ import annotations

import http.client
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.actions import (
    TOKENS,
    ask,
    drop_by_chooser,
    limit_answers,
    long_document,
    wait_for_tokens,
    wait_until_idle,
)
from tests.browser.conftest import Site, open_page


def test_a_pdf_from_drop_to_answer(page: Any, samples: Path) -> None:
    page.evaluate(
        """() => { window.gauges = new Set(); setInterval(() => {
        gauges.add(document.querySelector('#gauge-host .kinds').textContent) }, 100);
        window.lengths = new Set(); const live = document.querySelector('#live');
        new MutationObserver(() => lengths.add(live.querySelector('.answer')?.textContent.length))
          .observe(live, { childList: true, subtree: true, characterData: true }) }"""
    )
    drop_by_chooser(page, samples / "observatory-handbook.pdf")
    wait_for_tokens(page)
    expect(page.locator("#documents")).to_contain_text("observatory-handbook.pdf")
    expect(page.locator("#documents")).to_contain_text("8 pages")
    page.click("#documents summary")
    expect(page.locator("#documents details.receipt")).to_contain_text("1 page without text (p. 5)")
    ask(page, "Who built the observatory?")
    wait_until_idle(page)
    # It came in pieces, each painted.
    assert page.evaluate("[...lengths].filter(Boolean).length") >= 2
    expect(page.locator("#history")).to_contain_text("Solveig Aune")
    expect(page.locator("#history .figures")).to_contain_text("tokens/s")
    expect(page.locator("#history .figures")).to_contain_text("First word after")
    assert page.evaluate("gauges.size") >= 2
    assert re.search(r"\d+\.\d\d GiB", page.inner_text("#gauge-host"))


def test_dropping_by_drag(page: Any, samples: Path) -> None:
    text = (samples / "beekeeping-guide.md").read_text()
    page.evaluate(
        """(text) => {
        const data = new DataTransfer();
        data.items.add(new File([text], 'guide & <b>notes<b>.md'));
        data.items.add(new File(['%PDF-1.4 broken'], 'broken.pdf'));
        document.querySelector('#mid').dispatchEvent(
            new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true})) }""",
        text,
    )
    wait = page.locator("#documents .rows > li")
    expect(wait).to_have_count(2, timeout=180_000)
    expect(page.locator("#documents .facts").first).to_have_text(TOKENS, timeout=180_000)
    expect(page.locator("#documents .rows .name").first).to_have_text("guide & <b>notes<b>.md")
    expect(page.locator("#documents .error")).to_contain_text("damaged or not a PDF")
    page.click("#documents .remove >> nth=1")
    expect(wait).to_have_count(1)


def drop_folder(page: Any, folder: Path) -> None:
    session = page.context.new_cdp_session(page)
    box = page.locator("#drop").bounding_box()
    place = {"x": box["x"] + 20, "y": box["y"] + 20}
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})


def test_dropping_a_folder(page: Any, samples: Path) -> None:
    drop_folder(page, samples / "tidebell")
    expect(page.locator("#documents .facts")).to_have_text(
        re.compile(r"^6 files · " + TOKENS.pattern), timeout=180_000
    )
    page.click("#documents summary")
    expect(page.locator("#documents details.receipt")).to_contain_text("poetry.lock (lock file")
    # Files have names; ranges of numbers are for pages.
    expect(page.locator("#documents .search")).to_be_visible()
    expect(page.locator("#documents .range")).to_be_hidden()


def test_a_dropped_folder_hides_nothing(page: Any, tmp_path: Path) -> None:
    for name in ("a.txt", "node_modules/x/index.js"):
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("words")
    drop_folder(page, tmp_path / "project")
    wait_for_tokens(page)
    page.click("#documents summary")
    expect(page.locator("#documents details.receipt")).to_contain_text(
        "node_modules/ (installed packages, not uploaded"
    )
    (tmp_path / "nothing").mkdir()
    drop_folder(page, tmp_path / "nothing")
    expect(page.locator("#drop .upload")).to_contain_text("nothing is an empty folder")


def test_stop_while_reading(page: Any, tmp_path: Path, samples: Path) -> None:
    drop_by_chooser(page, long_document(tmp_path, samples))
    wait_for_tokens(page)
    ask(page, "When is honey ripe?")
    expect(page.locator("#progress .line")).to_contain_text("Reading", timeout=180_000)
    expect(page.locator("#progress .line")).to_contain_text("left")
    page.click("#stop")
    expect(page.locator("#stop")).to_be_disabled(timeout=180_000)
    expect(page.locator("#progress .line")).to_contain_text("Ask again to resume")
    # The question is not lost: it is in its box again, and only once.
    box = page.locator("#question textarea")
    expect(box).to_have_value("When is honey ripe?")
    box.fill("")
    page.reload()
    page.wait_for_selector("#send")
    expect(box).to_have_value("When is honey ripe?")
    box.fill("")
    page.wait_for_timeout(600)
    expect(box).to_have_value("")


def test_stop_while_answering_then_go_on(page: Any) -> None:
    ask(page, "Write a long story about a river.")
    expect(page.locator("#live .answer")).not_to_be_empty(timeout=180_000)
    page.click("#stop")
    expect(page.locator("#stop")).to_be_disabled(timeout=180_000)
    expect(page.locator("#progress .line")).to_contain_text("The answer so far is kept")
    expect(page.locator("#history")).to_contain_text("river")
    limit_answers(page, 5)
    ask(page, "And then?")
    wait_until_idle(page)
    expect(page.locator("#history .figures").last).to_contain_text(", reused")
    expect(page.locator("#history .figures").last).to_contain_text("stopped at the token limit")


def test_a_reload_finds_the_run_still_going(page: Any, site: Site) -> None:
    ask(page, "Write a long story about a mountain.")
    expect(page.locator("#live .answer")).not_to_be_empty(timeout=180_000)
    page.reload()
    page.wait_for_selector("#send")
    expect(page.locator("#stop")).to_be_enabled(timeout=180_000)
    expect(page.locator("#live .asked")).to_have_text("Write a long story about a mountain.")
    before = len(page.inner_text("#live .answer"))
    page.wait_for_function(f"document.querySelector('#live .answer').innerText.length > {before}")
    other = page.context.new_page()
    open_page(other, site)
    expect(other.locator("#stop")).to_be_enabled(timeout=180_000)
    other.click("#stop")
    expect(page.locator("#stop")).to_be_disabled(timeout=180_000)
    expect(page.locator("#history")).to_contain_text("mountain")
    page.reload()
    expect(page.locator("#history")).to_contain_text("mountain", timeout=180_000)


def test_a_closed_tab_loses_nothing(page: Any, site: Site) -> None:
    limit_answers(page, 12)
    ask(page, "Name a colour.")
    other = page.context.new_page()
    page.close()
    open_page(other, site)
    wait_until_idle(other)
    expect(other.locator("#history")).to_contain_text("Name a colour")
    expect(other.locator("#history .figures")).to_contain_text("tokens/s")


@pytest.mark.parametrize("offload", ["off", "KV to host", "KV + hidden to host"])
def test_settings_hold_for_the_next_question(
    page: Any, site: Site, samples: Path, offload: str
) -> None:
    drop_by_chooser(page, samples / "beekeeping-guide.md")
    wait_for_tokens(page)
    page.click("#aside-tabs [data-aside=settings]")
    page.click("#setting-offload input")
    page.get_by_role("option", name=offload, exact=True).click()
    chunk = page.locator("#setting-chunk input")
    chunk.fill("333")
    chunk.press("Enter")
    limit_answers(page, 20)
    now = site.workspace.settings
    assert (now.offload, now.chunk, now.max_new_tokens) == (offload, "333", 20)
    ask(page, "How much food does a colony need for winter?")
    wait_until_idle(page)
    expect(page.locator("#history")).to_contain_text("15 kilograms")


def test_mistakes_get_a_sentence(page: Any, tmp_path: Path, samples: Path) -> None:
    page.click("#send")
    expect(page.get_by_text("Type a question first.")).to_be_visible()
    page.click("#aside-tabs [data-aside=settings]")
    chunk = page.locator("#setting-chunk input")
    chunk.fill("many")
    chunk.press("Enter")
    expect(page.get_by_text("it must be auto or a whole number")).to_be_visible()
    drop_by_chooser(page, long_document(tmp_path, samples, copies=12))
    wait_for_tokens(page)
    expect(page.locator("#documents .total")).to_contain_text("too many for this model")
    page.fill("#question textarea", "Too long?")
    page.click("#send")
    expect(page.get_by_text("reads at most 8,192")).to_be_visible()
    expect(page.locator("#question textarea")).to_have_value("Too long?")


def test_text_can_not_become_markup(page: Any, site: Site) -> None:
    evil = '<img src="http://192.0.2.1/a.png" onerror="window.bad=1"><script>window.bad=1</script>'
    limit_answers(page, 3)
    ask(page, evil + " ![x](http://192.0.2.1/b.png)")
    wait_until_idle(page)
    expect(page.locator("#history")).to_contain_text("onerror", timeout=180_000)
    assert page.locator("#chat img[src*='192.0.2.1']").count() == 0
    assert page.evaluate("window.bad") is None


@pytest.mark.parametrize("width", [390, 1024, 1440])
def test_nothing_sticks_out_sideways(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    for element in ("drop", "documents", "question", "send", "stop", "chat", "progress"):
        assert page.locator(f"#{element}").count() == 1
    for element in ("gauge-device", "gauge-host", "setting-offload", "setting-chunk"):
        assert page.locator(f"#{element}").count() == 1
    wide = "document.documentElement.scrollWidth <= window.innerWidth"
    assert page.evaluate(wide)


def test_foreign_requests_get_nothing(site: Site) -> None:
    address = site.url.removeprefix("http://")
    attempts = [
        ("GET", "/", {"Host": "evil.com"}),
        ("GET", "/events", {"Origin": "http://evil.com"}),
        ("GET", "/config", {"Sec-Fetch-Site": "cross-site"}),
        ("PUT", f"/uploads/{'a' * 32}?path=x.txt", {"Origin": "http://evil.com"}),
        ("POST", "/gradio_api/upload", {"Origin": "null"}),
        ("POST", "/gradio_api/queue/join", {"Origin": "http://evil.com"}),
    ]
    for method, path, headers in attempts:
        connection = http.client.HTTPConnection(address, timeout=5)
        connection.request(method, path, body=b"x" if method != "GET" else None, headers=headers)
        response = connection.getresponse()
        assert response.status == 403, (method, path)
        assert b"Refused" in response.read()
        connection.close()
    assert not any(site.workspace.folder.iterdir())


@pytest.mark.parametrize("path", ["../../x", "/etc/passwd", "a/../b", "", "a\\b", "x" * 2000])
def test_upload_names_are_never_paths(site: Site, path: str) -> None:
    from urllib.parse import quote

    connection = http.client.HTTPConnection(site.url.removeprefix("http://"), timeout=5)
    connection.request("PUT", f"/uploads/{'b' * 32}?path={quote(path, safe='')}", body=b"x")
    response = connection.getresponse()
    assert response.status == 400
    assert b"not a name that a dropped file can have" in response.read()
    connection.close()


def test_a_page_at_rest_lets_the_browser_rest(page: Any, site: Site) -> None:
    page.add_init_script(
        """window.frames_asked = 0;
        const ask = window.requestAnimationFrame.bind(window);
        window.requestAnimationFrame = (act) => { window.frames_asked += 1; return ask(act); };"""
    )
    open_page(page, site)
    asked = []
    for _ in range(12):
        before = page.evaluate("window.frames_asked")
        page.wait_for_timeout(1000)
        asked.append(page.evaluate("window.frames_asked") - before)
        if asked[-1] <= 2:
            break
    # One timer of Gradio's that never ends would ask for sixty.
    assert asked[-1] <= 2


def test_gradio_private_name_still_exists() -> None:
    """The queue's pause between looks is set by a private name (see app/server/serve.py)."""
    import gradio

    with gradio.Blocks() as demo:
        pass
    demo.queue()
    assert isinstance(demo._queue.sleep_when_free, float)
