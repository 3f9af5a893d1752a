"""Imports point one way (docs/architecture.md): each test's failure names the import at fault."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Lower ranks know nothing of higher ones.
RANKS = [
    ("mom_core.errors", 0),
    ("mom_core.files", 0),
    ("mom_core.sizes", 0),
    ("mom_core.config", 1),
    ("mom_core.events", 1),
    *((f"mom_core.forecast.{name}", 2) for name in ("meter", "card", "device", "host")),
    *((f"mom_core.forecast.{name}", 2) for name in ("allocator", "placement", "strategy")),
    ("mom_core.hardware.known_rates", 4),
    ("mom_core.forecast", 5),
    ("mom_core.attention", 3),
    ("mom_core.kv", 3),
    ("mom_core.native", 3),
    ("mom_core.model", 4),
    ("mom_core.mini_sequence", 5),
    ("mom_core.generate", 5),
    ("mom_core.verify", 5),
    ("mom_core.context", 6),
    ("mom_core.engine", 6),
    ("mom_core", 7),
    ("app", 8),
]
FORBIDDEN = {
    "app/documents": {"torch", "transformers", "gradio"},
    "mom_core": {"gradio", "fastapi", "app"},
    "app/workspace/jobs.py": {"gradio", "torch"},
    "app/ui/views/run.py": {"gradio", "torch", "transformers"},
}


def rank(module: str) -> int:
    return next(r for name, r in RANKS if module == name or module.startswith(name + "."))


def imports(path: Path) -> list[tuple[str, int, bool]]:
    """Modules imported, with line, and whether when the file itself is imported."""
    found = []
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        found += [(name, node.lineno, id(node) in top) for name in names]  # type: ignore[attr-defined]
    return found


FILES = sorted([*ROOT.glob("mom_core/**/*.py"), *ROOT.glob("app/**/*.py")])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    relative = path.relative_to(ROOT)
    module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
    for name, line, at_import in imports(path):
        if name.split(".")[0] not in ("mom_core", "app") or module == "mom_core":
            continue
        if at_import:
            assert rank(name) <= rank(module), (
                f"{relative}:{line} imports {name}, which lies above it: "
                "move the code, or hand the thing in as an argument."
            )
    for folder, names in FORBIDDEN.items():
        if str(relative).startswith(folder):
            for name, line, _ in imports(path):
                assert name.split(".")[0] not in names, f"{relative}:{line} must not import {name}"


@pytest.mark.parametrize(
    "module", ["mom_core", "app.documents", "app.workspace.jobs", "app.ui.views.run"]
)
def test_light_imports(module: str) -> None:
    code = f"import {module}, sys; print('torch' in sys.modules, 'gradio' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.split() == ["False", "False"], f"{module} drags in torch or gradio"


def test_public_names_exist() -> None:
    import mom_core

    for name in mom_core.__all__:
        assert getattr(mom_core, name) is not None
