"""400,000 tokens on the page for real: dropped, foreseen, stopped, gone on with, asked twice.

The model is a random one of two layers that reads 524,288 tokens; keys and values are on the disk.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from benchmarks.long_model import make_document, make_long_model
from mom_core.config import EngineConfig
from tests.browser.actions import ask, drop_by_chooser
from tests.browser.conftest import Site, is_fault, open_page, serving

pytestmark = pytest.mark.slow
TOKENS = 400_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long") / "model"
    make_long_model(folder)
    return folder


@pytest.fixture(scope="module")
def document(model: Path) -> Path:
    from transformers import AutoTokenizer

    path = model.parent / "long.txt"
    make_document(path, TOKENS, AutoTokenizer.from_pretrained(model))
    return path


@pytest.fixture
def long_site(browser: Any, model: Path, tmp_path: Path) -> Iterator[Site]:
    with serving(str(model), EngineConfig(scratch_folder=tmp_path)) as site:
        site.workspace.configure(offload="KV + hidden to disk", max_new_tokens=8)
        yield site


def number(text: str) -> int:
    found = re.search(r"[\d,]+", text)
    assert found is not None
    return int(found.group().replace(",", ""))


def test_dropped_foreseen_stopped_and_asked_twice(
    browser: Any, long_site: Site, document: Path
) -> None:
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    faults: list[str] = []
    page.on("console", lambda m: faults.append(m.text) if is_fault(m) else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    open_page(page, long_site)
    drop_by_chooser(page, document)
    facts = page.locator("#documents .facts")
    expect(facts).to_have_text(re.compile(r"4\d\d,\d{3} tokens · 7\d% of the context"))
    tokens = number(facts.inner_text().split("·")[1])
    assert tokens >= TOKENS

    # Before anything is sent: what it will cost.
    card = page.locator("#forecast")
    expect(card).to_contain_text(re.compile(r"4\d\d,\d{3} tokens"))
    expect(card).to_contain_text("plain transformers")
    expect(card).to_contain_text("to read")

    # Progress, and Stop.
    ask(page, "What is it about?")
    bar = page.locator("#progress .bar")
    page.wait_for_function(
        "Number(document.querySelector('#progress .bar').getAttribute('aria-valuenow')) >= 5",
        timeout=180_000,
    )
    expect(page.locator("#progress .line")).to_contain_text("layer 1 of 2")
    page.click("#stop")
    expect(page.locator("#stop")).to_be_disabled(timeout=180_000)
    stopped_at = int(bar.get_attribute("aria-valuenow") or 0)
    assert stopped_at < 100

    # It goes on from there, and the page can be used meanwhile.
    ask(page, "What is it about?")
    page.fill("#question textarea", "And what else?")
    expect(page.locator("#question textarea")).to_have_value("And what else?")
    page.reload()
    expect(page.locator("#stop")).to_be_enabled()
    expect(page.locator("#stop")).to_be_disabled(timeout=600_000)
    run = page.locator("#history [data-testid=bot]")
    expect(run.last).to_contain_text("Wrote 8")

    # A second question reads nothing of the document again.
    ask(page, "And what else?")
    expect(page.locator("#stop")).to_be_disabled(timeout=180_000)
    expect(run).to_have_count(2)
    last = run.last.inner_text()
    read = re.search(r"read ([\d,]+) tokens", last)
    assert read is not None, last
    assert number(read.group(1)) < 100
    assert faults == []
    page.context.close()
