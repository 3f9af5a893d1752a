"""Scripts and styles of the page: short lines, and nothing loaded from elsewhere.

`test_files.py` checks their length.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.architecture.source import ROOT

_STATIC = ROOT / "app" / "ui" / "static"
_FILES = sorted(
    path
    for path in _STATIC.iterdir()
    if path.suffix in (".js", ".css") and ".min." not in path.name
)
_COLUMNS = 110
# The name of a document type, which every SVG picture must carry; nothing is loaded from it.
_NAMES = {"http://www.w3.org/2000/svg"}
# An address with a scheme, or a string or url() that begins with two slashes.
_ADDRESS = re.compile(r"(?:\b(?:https?|wss?|ftp):|(?<=[\"'`(]))//[^\s\"'`)]+")


def long_lines(text: str) -> list[int]:
    """Numbers of the lines that do not fit a screen."""
    return [n for n, line in enumerate(text.splitlines(), 1) if len(line) > _COLUMNS]


def foreign_addresses(text: str) -> set[str]:
    """Addresses of other sites."""
    return set(_ADDRESS.findall(text)) - _NAMES


def says_what_it_is(text: str) -> bool:
    """Whether the first thing in a file is a comment of at least a few words."""
    comment = re.match(r"/\*(.*?)\*/", text, re.DOTALL)
    return comment is not None and len(comment[1].split()) >= 3


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.name)
def test_lines_fit_a_screen(path: Path) -> None:
    numbers = long_lines(path.read_text())
    assert not numbers, f"{path.name}: lines {numbers} have more than {_COLUMNS} characters."


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.name)
def test_a_file_begins_by_saying_what_it_is(path: Path) -> None:
    assert says_what_it_is(path.read_text()), f"{path.name} does not begin with a comment."


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.name)
def test_nothing_is_loaded_from_elsewhere(path: Path) -> None:
    addresses = foreign_addresses(path.read_text())
    assert not addresses, f"{path.name} has addresses of other sites: {addresses}"


def test_the_checks_can_fail() -> None:
    assert _FILES
    assert long_lines("a\n" + "b" * (_COLUMNS + 1)) == [2]
    assert foreign_addresses('a = "https://b.c/d"; e("//f.g/h"); // i\nurl(//j.k)') == {
        "https://b.c/d",
        "//f.g/h",
        "//j.k",
    }
    assert not says_what_it_is("export const a = 1; /* Not the first thing. */")
