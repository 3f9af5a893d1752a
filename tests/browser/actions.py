"""What a person does on the page, for tests in the browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

TOKENS = re.compile(r"[\d,]+ tokens · \d+% of the context")


def drop_by_chooser(page: Any, path: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.click("#drop .drop-area")
    chooser.value.set_files(path)


def wait_for_tokens(page: Any) -> None:
    expect(page.locator("#documents .facts").last).to_have_text(TOKENS, timeout=180_000)


def ask(page: Any, question: str) -> None:
    # A run of five tokens may begin and end between two looks; an observer misses none.
    page.evaluate(
        """() => {
          const stop = document.querySelector("#stop");
          window.hasRun = false;
          new MutationObserver(() => { window.hasRun ||= !stop.disabled; })
            .observe(stop, { attributes: true });
        }"""
    )
    page.fill("#question textarea", question)
    page.click("#send")
    page.wait_for_function("window.hasRun", timeout=180_000)


def limit_answers(page: Any, tokens: int) -> None:
    page.click("#aside-tabs [data-aside=settings]")
    page.fill("#setting-max-new-tokens input", str(tokens))
    page.locator("#setting-max-new-tokens input").blur()
    page.wait_for_timeout(300)


def wait_for_words(page: Any) -> None:
    """Until an answer of unknown length has begun, or is there already."""
    answer = page.locator("#live .answer:not(:empty), #history .figures")
    answer.first.wait_for(timeout=180_000)


def stop_if_running(page: Any) -> None:
    """For answers that may have ended by themselves: a button that is disabled ignores this."""
    page.evaluate("document.querySelector('#stop').click()")


def wait_until_idle(page: Any) -> None:
    expect(page.locator("#stop")).to_be_disabled(timeout=180_000)


def long_document(tmp_path: Path, samples: Path, copies: int = 5) -> Path:
    path = tmp_path / "long.md"
    path.write_text((samples / "beekeeping-guide.md").read_text() * copies)
    return path
