"""Scripts and styles of the page: short lines, and nothing loaded from elsewhere."""

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
# The name of a document type, and what a picture must carry: neither is loaded.
_NAMES = ("http://www.w3.org/",)


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.name)
def test_lines_fit_a_screen(path: Path) -> None:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        assert len(line) <= 110, f"{path.name}:{number} has {len(line)} characters"


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.name)
def test_a_file_begins_by_saying_what_it_is(path: Path) -> None:
    assert path.read_text().startswith("/* ")


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.name)
def test_nothing_is_loaded_from_elsewhere(path: Path) -> None:
    addresses = re.findall(r"https?://[^\s\"'`)]+", path.read_text())
    assert all(address.startswith(_NAMES) for address in addresses), addresses
