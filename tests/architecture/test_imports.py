"""Imports point one way (docs/architecture.md): each test's failure names the import at fault."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.architecture.source import ROOT, Module, imports, modules, ours

# Lower ranks know nothing of higher ones; imports inside functions and for types count as well.
RANKS = {
    "mom_core.errors": 0,
    "mom_core.files": 0,
    "mom_core.generators": 0,
    "mom_core.sizes": 1,
    "mom_core.config": 1,
    "mom_core.events": 1,
    "mom_core.held_bytes": 2,
    "mom_core.strategy": 2,
    "mom_core.native": 2,
    "mom_core.partial_attention": 3,
    "mom_core.attention": 3,
    "mom_core.kv": 4,
    "mom_core.snapshot": 5,
    "mom_core.hardware": 5,
    "mom_core.model": 6,
    "mom_core.generate": 7,
    "mom_core.context": 7,
    "mom_core.forecast": 9,
    "mom_core.placement": 10,
    "mom_core.reader": 11,
    "mom_core.reopen": 11,
    "mom_core.run": 12,
    "mom_core.verify": 12,
    "mom_core.mini_sequence": 13,
    "mom_core.engine": 13,
    "mom_core": 14,
    "app": 20,
    "app.outside_names": 20,
    "app.interrupts": 20,
    "app.documents": 20,
    "app.prompt": 21,
    "app.citations": 22,
    "app.library": 22,
    "app.wording": 23,
    "app.workspace": 24,
    "app.ui": 25,
    "app.server": 26,
    "app.cli": 27,
}
# What a folder or file may not import at all.
FORBIDDEN = {
    "app/documents": {"torch", "transformers", "gradio"},
    "mom_core": {"gradio", "fastapi", "app"},
    "app/workspace/jobs.py": {"gradio", "torch"},
    "app/workspace/run_view.py": {"gradio", "torch", "transformers"},
    "app/ui/views": {"gradio", "torch", "transformers"},
}


def rank(name: str) -> int:
    """Of a module: its own, or that of the folder it lies in."""
    while name not in RANKS:
        name = name.rpartition(".")[0]
    return RANKS[name]


@pytest.mark.parametrize("module", modules().values(), ids=lambda module: module.name)
def test_imports_point_one_way(module: Module) -> None:
    for name, line in imports(module):
        # The packages' own lists of public names look inwards.
        if ours(name) and module.name not in PUBLIC:
            assert rank(name) <= rank(module.name), (
                f"{module.path}:{line} imports {name}, which lies above it: "
                "move the code, or hand the thing in as an argument."
            )
        for place, names in FORBIDDEN.items():
            if str(module.path).startswith(place):
                assert name.split(".")[0] not in names, (
                    f"{module.path}:{line} must not import {name}"
                )


PUBLIC = {"mom_core", "app.documents", "app.prompt"}


def test_no_circle() -> None:
    graph = {
        module.name: {name for name, _ in imports(module) if name in modules()} - {module.name}
        for module in modules().values()
        if module.name not in PUBLIC
    }
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, "these import each other: " + " -> ".join(
            [*way[way.index(name) :], name]
        )
        if name in done:
            return
        for other in sorted(graph.get(name, ())):
            walk(other, (*way, name))
        done.add(name)

    for name in graph:
        walk(name, ())


@pytest.mark.parametrize(
    "module", ["mom_core", "app.documents", "app.workspace.jobs", "app.workspace.run_view"]
)
def test_light_imports(module: str) -> None:
    code = f"import {module}, sys; print('torch' in sys.modules, 'gradio' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.split() == ["False", "False"], f"{module} drags in torch or gradio"


def test_public_names_exist() -> None:
    import mom_core

    for name in mom_core.__all__:
        assert getattr(mom_core, name) is not None
