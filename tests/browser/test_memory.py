"""The picture of memory and the forecast, as a person sees and uses them."""

from __future__ import annotations

import csv
import io
import re
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from app import wording
from tests.browser.actions import drop_by_chooser, long_document, stop_if_running, wait_for_tokens
from tests.browser.conftest import Site

AREA = "#timeline .area.weights"


def number(text: str) -> int:
    """The first number of a text."""
    found = re.search(r"[\d,]+", text)
    assert found is not None, text
    return int(found[0].replace(",", ""))


def headline(page: Any) -> int:
    expect(page.locator("#forecast .headline")).to_have_text(re.compile(r"[\d,]+ tokens"))
    return number(page.inner_text("#forecast .headline"))


def answer(page: Any, site: Site, question: str) -> None:
    """Asks and waits; the run may be over before the page has shown that it is on."""
    before = len(site.workspace.conversations.newest.answered)
    page.fill("#question textarea", question)
    page.click("#send")
    end = time.monotonic() + 300
    while len(site.workspace.conversations.newest.answered) == before or site.workspace.is_busy:
        assert time.monotonic() < end
        time.sleep(0.05)


def read_a_sample(page: Any, site: Site, path: Path) -> None:
    """A document and a short answer about it."""
    drop_by_chooser(page, path)
    wait_for_tokens(page)
    site.workspace.configure(max_new_tokens=4)
    answer(page, site, "Who built the observatory?")


@pytest.fixture
def note(tmp_path: Path) -> Path:
    """A short document that no other test has read."""
    path = tmp_path / "note.md"
    path.write_text(
        f"# {tmp_path.name}\n\nThe observatory was built by the people of the valley.\n"
    )
    return path


def test_the_forecast_tells_what_fits_and_follows_parts_and_settings(
    page: Any, site: Site, samples: Path
) -> None:
    card = page.locator("#forecast")
    expect(card.locator(".headline")).to_have_text(wording.NOTHING_DROPPED)
    expect(card.locator(".sentence")).to_contain_text("can use its whole context of 8,192 tokens")
    drop_by_chooser(page, samples / "observatory-handbook.pdf")
    wait_for_tokens(page)
    before = headline(page)
    assert before > 1000
    expect(card.locator(".figures")).to_contain_text("per token")
    expect(card.locator(".bars")).to_contain_text("plain transformers")
    expect(card.locator(".made-of")).to_contain_text("weights")
    if site.workspace.model.memory().device_name is None:
        expect(card.locator(".reason")).to_contain_text(wording.ON_CPU)

    page.locator("#tree [role=treeitem]").nth(2).locator(".tick").click()
    expect(card.locator(".change")).to_contain_text("This change: \u2212")
    less = headline(page)
    assert less < before
    assert number(card.locator(".change").inner_text()) == before - less

    site.workspace.configure(chunk="64")
    expect(card.locator(".reason")).to_contain_text("chunks of 64 tokens")


def test_a_run_is_drawn_as_it_goes_and_its_numbers_can_be_read(
    page: Any, site: Site, samples: Path
) -> None:
    read_a_sample(page, site, samples / "observatory-handbook.pdf")
    expect(page.locator("#timeline .none")).to_be_hidden()
    first = page.get_attribute(AREA, "d")
    assert first.startswith("M")
    assert page.locator("#timeline line.peak").count() >= 1
    assert page.locator("#timeline line.standard").count() >= 1
    expect(page.locator("#timeline .phases text").first).to_have_text(re.compile("Reading"))
    expect(page.locator("#forecast .compared tbody")).to_contain_text("Peak of the model")
    expect(page.locator("#forecast .reuse")).to_contain_text("can be reused")
    label = page.get_attribute("#timeline .chart", "aria-label")
    assert "peak" in label
    assert "Plain transformers would have needed" in label

    # By keyboard, then by pointer.
    page.focus("#timeline .chart")
    page.keyboard.press("Home")
    tip = page.locator("#timeline .tip").first
    expect(tip).to_contain_text("Weights")
    expect(tip).to_contain_text("Total")
    page.keyboard.press("Tab")
    expect(tip).to_be_hidden()
    page.hover("#timeline .chart", position={"x": 200, "y": 100})
    expect(tip).to_contain_text("Hidden states")

    # The picture is about the model; what programs take is a number until it is wanted.
    for kind in ("rest", "others"):
        expect(page.locator(f"#timeline .area.{kind}")).to_have_attribute("d", "")
        expect(page.locator(f"#timeline .legend .{kind} button")).to_have_attribute(
            "aria-pressed", "false"
        )
    caption = page.locator("#timeline .caption")
    expect(caption).to_contain_text(re.compile(r"also in use: this program [\d.]+ [MG]iB"))
    page.click("#timeline .legend .rest button")
    expect(page.locator("#timeline .area.rest")).not_to_have_attribute("d", "")
    expect(caption).not_to_contain_text("this program")
    page.click("#timeline .legend .rest button")
    page.click("#timeline .legend .weights button")
    expect(page.locator(AREA)).to_have_attribute("d", "")
    page.click("#timeline .legend .weights button")
    expect(page.locator(AREA)).not_to_have_attribute("d", "")

    # Another run is another picture.
    answer(page, site, "And when?")
    expect(page.locator(AREA)).not_to_have_attribute("d", first)
    expect(page.locator("#forecast h2")).to_have_text("Next question")


# Of a machine of 24 GiB without a GPU: weights, KV, hidden states, activations, programs.
MODEL = [4000, 2000, 200, 600]
DRAWN = """async ([others, model]) => {
    const { emit } = await import("./static/core.js");
    emit("timeline", { device_name: null, device_limit: 0, host_limit: 24576, standard: 9000 });
    const row = (n) => [n, "reading", n, [], [...model, 1200, others], 0];
    emit("points", { points: Array.from({ length: 20 }, (_, n) => row(n)), marks: [] });
}"""


@pytest.mark.parametrize(
    ("others", "is_near"), [(3000, False), (14000, True)], ids=["room", "crowded"]
)
def test_the_model_is_large_and_the_limit_is_seen_where_it_is_near(
    page: Any, others: int, is_near: bool
) -> None:
    page.evaluate(DRAWN, [others, MODEL])
    chart = page.locator("#timeline .chart")
    height = chart.bounding_box()["height"]
    # Of the height the model has a good part, whatever others take.
    parts = [
        page.locator(f"#timeline .area.{kind}").bounding_box()["height"]
        for kind in ("weights", "kv", "hidden", "activations")
    ]
    assert sum(parts) > 0.4 * height
    # Readable without colour: names in the areas, numbers beside them.
    expect(page.locator("#timeline text.kind")).to_have_text(["Weights", "KV"])
    expect(page.locator("#timeline .caption")).to_have_text(
        "Memory used by the model: 6.6 GiBalso in use: this program 1.2 GiB, other programs "
        + ("14 GiB" if is_near else "2.9 GiB")
    )
    expect(page.locator("#timeline line.standard")).to_have_count(1)
    expect(page.locator("#timeline line.limit")).to_have_count(int(is_near))
    room = "9.2 GiB" if is_near else "20 GiB"
    expect(page.locator("#timeline text.limit")).to_have_text(
        f"room {room}" if is_near else f"\u2191 room {room}"
    )


def test_the_picture_is_in_sight_while_a_question_is_read(
    page: Any, site: Site, tmp_path: Path, samples: Path
) -> None:
    # With the table of the run before, which is the longest that the card becomes.
    drop_by_chooser(page, long_document(tmp_path, samples))
    wait_for_tokens(page)
    page.evaluate(DRAWN, [3000, MODEL])
    site.workspace.configure(max_new_tokens=4)
    page.fill("#question textarea", "When is honey ripe?")
    page.click("#send")
    expect(page.locator("#forecast .work")).to_be_visible()
    box = page.locator("#timeline .charts").bounding_box()
    assert box["y"] + box["height"] <= page.viewport_size["height"]
    assert page.evaluate("document.querySelector('#aside').scrollTop") == 0
    stop_if_running(page)


def test_memory_that_ran_out_is_a_mark_and_not_an_error(page: Any, site: Site, note: Path) -> None:
    read_a_sample(page, site, note)
    site.workspace.history.mark("GPU full: chunk 8,192 \u2192 4,096, continued")
    expect(page.locator("#timeline .marks")).to_contain_text("chunk 8,192 \u2192 4,096, continued")
    expect(page.locator("#timeline circle.mark").first).to_be_attached()


def test_numbers_and_picture_can_be_saved_and_seen_large(page: Any, site: Site, note: Path) -> None:
    read_a_sample(page, site, note)
    expect(page.locator("#timeline [data-act=csv]")).to_be_visible()
    with page.expect_download() as saved:
        page.click("#timeline [data-act=csv]")
    rows = list(csv.DictReader(io.StringIO(Path(saved.value.path()).read_text())))
    assert list(rows[0])[:4] == ["seconds", "phase", "layer", "device_weights_mib"]
    assert {"host_hidden_mib", "host_others_mib", "disk_mib", "event"} <= set(rows[0])
    assert {row["phase"] for row in rows} <= {"idle", "waiting", "reading", "answering"}
    assert max(float(row["host_weights_mib"] or 0) for row in rows) > 100
    with page.expect_download() as saved:
        page.click("#timeline [data-act=png]")
    picture = Path(saved.value.path()).read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 5000

    small = page.locator("#timeline .chart").first.bounding_box()["width"]
    page.click("#timeline [data-act=wide]")
    expect(page.locator("#timeline dialog")).to_be_visible()
    view, screen = page.locator("#timeline dialog").bounding_box(), page.viewport_size
    assert 2 * view["x"] + view["width"] == pytest.approx(screen["width"], abs=2)
    assert 2 * view["y"] + view["height"] == pytest.approx(screen["height"], abs=2)
    assert page.locator("#timeline .chart").first.bounding_box()["width"] > 2 * small
    page.keyboard.press("Escape")
    expect(page.locator("#timeline dialog")).to_be_hidden()
    expect(page.locator("#timeline .chart").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_screen(
    browser: Any, page: Any, site: Site, note: Path, scheme: str
) -> None:
    read_a_sample(page, site, note)
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    phone = context.new_page()
    try:
        phone.goto(site.url)
        phone.wait_for_selector("html[data-tab=chat]")
        phone.click("#tabs [data-tab=memory]")
        # The last run is there for a page that comes later.
        expect(phone.locator(AREA).first).not_to_have_attribute("d", "")
        for part in ("#forecast .card", "#timeline .card", "#gauge-host .gauge"):
            expect(phone.locator(part)).to_be_visible()
            box = phone.locator(part).bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 390, part
        end = time.monotonic() + 300
        while phone.evaluate("document.documentElement.scrollWidth") > 390:
            assert time.monotonic() < end, "wider than the screen"
    finally:
        context.close()
