"""The threat model names only tests that there are."""

from __future__ import annotations

import ast
import re

from benchmarks.record import ROOT

NAMED = set(re.findall(r"test_[a-z0-9_]+", (ROOT / "docs" / "security.md").read_text()))


def known() -> set[str]:
    """Every file of tests and every test in it."""
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        nodes = ast.parse(path.read_text()).body
        found |= {path.stem, *(node.name for node in nodes if isinstance(node, ast.FunctionDef))}
    return found


def test_every_test_that_is_named_exists() -> None:
    assert len(NAMED) > 40
    assert sorted(NAMED - known()) == []


def test_the_check_can_fail() -> None:
    assert "test_that_nobody_wrote" not in known()
