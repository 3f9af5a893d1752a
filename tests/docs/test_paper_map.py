"""The paper map names only what exists."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re

import pytest

from benchmarks.record import ROOT

NAMES = sorted(set(re.findall(r"`([^`]+)`", (ROOT / "docs" / "paper_map.md").read_text())))


def exists(name: str) -> bool:
    """Whether a test, a file, a module or a symbol is there."""
    if name.startswith("tests/") and "::" in name:
        path, _, test = name.partition("::")
        tree = ast.parse((ROOT / path).read_text())
        return any(isinstance(node, ast.FunctionDef) and node.name == test for node in tree.body)
    if "/" in name:
        return (ROOT / name).exists()
    module, _, symbol = name.rpartition(".")
    return importlib.util.find_spec(name) is not None if not symbol else has(module, symbol)


def has(module: str, symbol: str) -> bool:
    found = importlib.import_module(module)
    return hasattr(found, symbol) or importlib.util.find_spec(f"{module}.{symbol}") is not None


@pytest.mark.parametrize("name", [name for name in NAMES if "=" not in name])
def test_what_the_map_names_exists(name: str) -> None:
    assert exists(name), f"docs/paper_map.md names {name}, which is not there"


def test_the_check_can_fail() -> None:
    assert not exists("tests/equivalence/test_families.py::test_nothing")
    assert not exists("benchmarks/nothing.py")
    assert not has("benchmarks", "nothing")
