"""A file is one idea: short, and every public name in it says what it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.source import ROOT, parsed

_LINES = 500
_SOURCES = sorted(
    path
    for pattern in (
        *(f"{folder}/**/*.py" for folder in ("app", "mom_core", "benchmarks", "tests")),
        *(f"mom_core/native/*.{ending}" for ending in ("c", "h")),
        *(f"app/ui/static/*.{ending}" for ending in ("js", "css")),
    )
    for path in ROOT.glob(pattern)
)
_DOCUMENTED = sorted(
    path for folder in ("app", "mom_core", "benchmarks") for path in ROOT.glob(f"{folder}/**/*.py")
)


@pytest.mark.parametrize("path", _SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_long(path: Path) -> None:
    lines = path.read_text().count("\n")
    assert lines <= _LINES, f"{path.relative_to(ROOT)} has {lines} lines: part it by idea."


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Public names without a docstring: module, classes, functions and methods."""
    if not ast.get_docstring(tree):
        yield "the module"

    def walk(body: list[ast.stmt], prefix: str) -> Iterator[str]:
        for node in body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            is_overload = any("overload" in ast.unparse(d) for d in node.decorator_list)
            if node.name.startswith("_") or is_overload:
                continue
            if not ast.get_docstring(node):
                yield f"{prefix}{node.name}"
            if isinstance(node, ast.ClassDef):
                yield from walk(node.body, f"{node.name}.")

    yield from walk(tree.body, "")


@pytest.mark.parametrize("path", _DOCUMENTED, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_names_say_what_they_are(path: Path) -> None:
    missing = list(undocumented(parsed(path)))
    assert not missing, f"{path.relative_to(ROOT)}: no docstring for {', '.join(missing)}"


def test_the_check_can_fail() -> None:
    source = 'class A:\n    def b(self): ...\n    def _c(self): ...\ndef d():\n    """Yes."""\n'
    assert list(undocumented(ast.parse(source))) == ["the module", "A", "A.b"]
