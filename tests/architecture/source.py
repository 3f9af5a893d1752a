"""The source of both packages, parsed once for all tests of the architecture."""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("mom_core", "app")


@dataclass(frozen=True)
class Module:
    """A file of ours.

    Args:
        name: dotted, without `.__init__`.
        path: relative to the repository.
        tree: its syntax tree.
    """

    name: str
    path: Path
    tree: ast.Module


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text())


@functools.cache
def modules() -> dict[str, Module]:
    """Every module of both packages, by name."""
    found = {}
    for package in PACKAGES:
        for path in sorted(ROOT.glob(f"{package}/**/*.py")):
            relative = path.relative_to(ROOT)
            name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
            found[name] = Module(name, relative, parsed(path))
    return found


def imports(module: Module) -> list[tuple[str, int]]:
    """Modules that a module imports anywhere (in functions and for types too), with the line."""
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
    """Whether a module is of one of our packages."""
    return name.split(".")[0] in PACKAGES
