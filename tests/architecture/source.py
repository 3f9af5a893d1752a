"""Our source, parsed once for all tests of the architecture."""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("mom_core", "app")
# Benchmarks keep most of the rules too.
WITH_BENCHMARKS = (*PACKAGES, "benchmarks")


@dataclass(frozen=True)
class Module:
    """One Python file of ours.

    Args:
        name: the dotted module name, without `.__init__`.
        path: the file, relative to the repository.
        tree: the file's syntax tree.
    """

    name: str
    path: Path
    tree: ast.Module


def parse(path: str, text: str) -> Module:
    """A module from the text of a file.

    Args:
        path: the file, relative to the repository.
        text: the Python source.
    """
    return Module(_dotted(Path(path)), Path(path), ast.parse(text))


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text())


@functools.cache
def modules(packages: tuple[str, ...] = PACKAGES) -> dict[str, Module]:
    """Every module of these packages, by dotted name."""
    found = {}
    for package in packages:
        for path in sorted(ROOT.glob(f"{package}/**/*.py")):
            relative = path.relative_to(ROOT)
            name = _dotted(relative)
            found[name] = Module(name, relative, parsed(path))
    return found


def _dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imports(module: Module) -> list[tuple[str, int]]:
    """The modules that a file imports, in functions and for types too, each with its line."""
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.append((inner if inner in modules() else node.module, node.lineno))
    return found


def ours(name: str) -> bool:
    """Whether a module belongs to one of our packages."""
    return name.split(".")[0] in PACKAGES
