"""Prepared documents on the page: names, and what they may take of the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from app.library.entry import DocumentInfo
from app.library.library import Library
from tests.browser.conftest import Site


@pytest.fixture
def library(site: Site, tmp_path: Path) -> Iterator[Library]:
    """A library with two entries of 3 MiB, the second one used last."""
    made = Library(tmp_path)
    for name in ("report.pdf", "contract.pdf"):
        folder = made.new_folder()
        made.describe(folder, [DocumentInfo(name, "")])
        (folder / "kv.bin").write_bytes(bytes(3 * 2**20))
    site.workspace.library = made
    yield made
    site.workspace.library = None


def open_library(page: Any) -> None:
    page.click("#aside-tabs [data-aside=settings]")
    page.click("#library summary")


def test_an_entry_is_renamed_and_forgotten(page: Any, library: Library) -> None:
    open_library(page)
    names = page.locator("#library .list b")
    expect(names).to_have_text(["contract.pdf", "report.pdf"])
    page.get_by_role("button", name="Rename report.pdf").click()
    page.keyboard.type("<b>Annual</b> report")
    page.keyboard.press("Enter")
    expect(names).to_have_text(["contract.pdf", "<b>Annual</b> report"])
    assert library.find("<b>Annual</b> report").size_bytes > 3 * 2**20
    # A name that is taken is refused with the reason, and all stays as it was.
    page.get_by_role("button", name="Rename contract.pdf").click()
    page.keyboard.type("<b>Annual</b> report")
    page.keyboard.press("Enter")
    expect(page.locator("#library .answer")).to_contain_text("already; choose another")
    expect(names).to_have_text(["contract.pdf", "<b>Annual</b> report"])
    page.get_by_role("button", name="Rename contract.pdf").click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Forget contract.pdf").click()
    expect(names).to_have_text(["<b>Annual</b> report"])


def test_the_quota_is_seen_and_changed_and_nothing_goes_unasked(
    page: Any, library: Library
) -> None:
    open_library(page)
    field = page.get_by_label("Keep at most")
    expect(page.locator("#library .text")).to_contain_text("6.0 MiB of ")

    def change(size: str) -> None:
        field.fill(size)
        page.click("#library .quota button")

    change("40 GiB")
    expect(page.locator("#library .text")).to_contain_text("6.0 MiB of 40.0 GiB used")
    assert library.quota().limit_bytes == 40 * 2**30
    change("a lot")
    expect(page.locator("#library .answer")).to_contain_text("is not a size of memory")
    questions: list[str] = []

    def answer(dialog: Any) -> None:
        # No at first, then yes.
        questions.append(dialog.message)
        (dialog.accept if len(questions) > 1 else dialog.dismiss)()

    page.on("dialog", answer)
    change("4 MiB")
    expect(field).to_have_value("40.0 GiB")
    assert len(library.list()) == 2
    assert library.quota().limit_bytes == 40 * 2**30
    change("4 MiB")
    expect(page.locator("#library .list b")).to_have_text(["contract.pdf"])
    assert library.quota().limit_bytes == 4 * 2**20
    assert questions == 2 * [
        "This deletes the least recently used prepared document (3.0 MiB). Continue?"
    ]


def test_without_a_library_that_is_said(page: Any) -> None:
    open_library(page)
    expect(page.locator("#library .text")).to_contain_text("was started with --no-save")
    expect(page.locator("#library .quota")).to_be_hidden()
