"""Only `mom_core/model/seam` knows what transformers looks like inside."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.source import Module, modules

SEAM = "mom_core.model.seam"


def internals(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Imports from below `transformers` of names that `transformers` itself does not give."""
    import transformers

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("transformers."):
                    yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("transformers."):
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module == "transformers":
            for alias in node.names:
                if not hasattr(transformers, alias.name):
                    yield f"transformers.{alias.name}", node.lineno


@pytest.mark.parametrize("module", modules().values(), ids=lambda module: module.name)
def test_internals_are_the_seams_alone(module: Module) -> None:
    if module.name.startswith(SEAM):
        return
    for name, line in internals(module.tree):
        pytest.fail(
            f"{module.path}:{line} imports {name}. Import it from `transformers` itself if it is "
            f"there; else what needs it belongs in {SEAM.replace('.', '/')}."
        )


def test_the_check_can_fail() -> None:
    tree = ast.parse("from transformers.cache_utils import Cache\nfrom transformers import Cache\n")
    assert [line for _, line in internals(tree)] == [1]
