"""axe-core finds nothing serious in any state of the page, in dark and light, wide and narrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from app.library.entry import DocumentInfo
from app.library.library import Library
from mom_core.errors import OutOfMemory
from tests.browser.actions import wait_until_idle
from tests.browser.conftest import Site

GRAVE = ("serious", "critical")


def show(page: Any, tab: str) -> None:
    """On phones, one part of the page at a time."""
    if page.locator("#tabs").is_visible():
        page.click(f"#tabs [data-tab={tab}]")
    elif tab in ("memory", "settings"):
        page.click(f"#aside-tabs [data-aside={tab}]")


def with_document(page: Any, site: Site, samples: Path) -> None:
    """A document on the shelf, counted."""
    show(page, "chat")
    page.locator("#live .samples button", has_text="observatory").click()
    expect(page.locator("#map canvas")).to_have_count(1)
    show(page, "documents")
    expect(page.locator("#tree [role=treeitem]")).not_to_have_count(0)
    page.click("#documents .receipt > summary")


def answered(page: Any, site: Site, samples: Path) -> None:
    """A finished answer to a question about the document."""
    with_document(page, site, samples)
    show(page, "chat")
    site.workspace.configure(max_new_tokens=6)
    page.fill("#question textarea", "Who built it?")
    page.click("#send")
    expect(page.locator("#stop")).to_be_enabled()
    wait_until_idle(page)
    expect(page.locator("#history .figures")).to_have_count(1)


def viewing(page: Any, site: Site, samples: Path) -> None:
    """The viewer with a page of the document."""
    with_document(page, site, samples)
    show(page, "chat")
    page.locator("#map canvas").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#viewer img').naturalWidth > 100")


def settings(page: Any, site: Site, samples: Path) -> None:
    """The settings with the list of models."""
    show(page, "settings")
    page.wait_for_selector("#models .list li", state="attached")
    page.click("#models summary")


def library(page: Any, site: Site, samples: Path) -> None:
    """The prepared documents, one of them being renamed."""
    show(page, "settings")
    page.click("#library summary")
    page.get_by_role("button", name="Rename report.pdf").click()
    expect(page.locator("#library .list input")).to_be_focused()


def failed(page: Any, site: Site, samples: Path) -> None:
    """A run that ended with a sentence."""
    with_document(page, site, samples)
    show(page, "chat")
    # The history begins each run: where that fails, the run fails.
    sentence = "The model needs 4.1 GiB and 1.0 GiB are free. Untick parts of the document."
    with patch.object(site.workspace.history, "begin", side_effect=OutOfMemory(sentence)):
        page.fill("#question textarea", "Who built it?")
        page.click("#send")
        expect(page.locator("#live .failed p")).to_have_text(sentence)


def empty(page: Any, site: Site, samples: Path) -> None:
    """As it is at first."""
    show(page, "memory")
    show(page, "chat")


STATES = [empty, with_document, answered, viewing, settings, library, failed]


@pytest.fixture(autouse=True)
def prepared(site: Site, tmp_path: Path) -> Iterator[None]:
    """One prepared document, so that there is something to see."""
    kept = Library(tmp_path)
    kept.describe(kept.new_folder(), [DocumentInfo("report.pdf", "")])
    site.workspace.library = kept
    yield
    site.workspace.library = None


@pytest.mark.parametrize(
    "state",
    [s if s in (answered, empty) else pytest.param(s, marks=pytest.mark.slow) for s in STATES],
    ids=lambda state: state.__name__,
)
def test_nothing_serious(
    page: Any, site: Site, samples: Path, state: Callable[[Any, Site, Path], None]
) -> None:
    """Widths and themes change on the same page: each state is made once."""
    state(page, site, samples)
    found = []
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 900 if width > 700 else 844})
        for theme in ("light", "dark"):
            page.evaluate("(is) => document.body.classList.toggle('dark', is)", theme == "dark")
            page.wait_for_timeout(250)
            tabs = ["chat", "documents", "memory"] if width < 700 else [None]
            for tab in ["settings"] if state in (settings, library) else tabs:
                if tab and state is not viewing:
                    show(page, tab)
                elif tab not in (None, "chat"):
                    continue
                found += [f"{width} {theme} {tab}: {line}" for line in violations(page)]
    assert not found, "\n".join(dict.fromkeys(found))


def violations(page: Any) -> list[str]:
    """What axe-core calls serious or critical: rule, element, and how it is wrong."""
    return [
        f"{one['id']} {node['target']}: {node.get('failureSummary', '')}"
        for one in Axe().run(page).response["violations"]
        if one["impact"] in GRAVE
        for node in one["nodes"]
    ]
