"""Only `mom_core/model/seam` knows what transformers looks like inside.

Internals are what cannot be imported from `transformers` itself: names that live only in its
submodules, and the private attributes of its objects.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator

import pytest

from tests.architecture.source import WITH_BENCHMARKS, Module, modules, parse

SEAM = "mom_core.model.seam"


def is_submodule(name: str) -> bool:
    """Whether `transformers.<name>` is a file or folder of transformers."""
    return importlib.util.find_spec(f"transformers.{name}") is not None


def touched(node: ast.AST) -> Iterator[str]:
    """The internals that one node of a syntax tree names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name.startswith("transformers."))
    elif isinstance(node, ast.ImportFrom) and not node.level:
        module = node.module or ""
        for alias in node.names:
            # `from transformers import logging` is public though there is a file of that name.
            is_inner = module == "transformers" and is_submodule(alias.name)
            if module.startswith("transformers.") or is_inner:
                yield f"{module}.{alias.name}"
    elif isinstance(node, ast.Attribute):
        is_package = isinstance(node.value, ast.Name) and node.value.id == "transformers"
        if is_package and is_submodule(node.attr):
            yield f"transformers.{node.attr}"
        elif node.attr.startswith("_attn_implementation"):
            yield node.attr
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        # `import_module("transformers.models.llama")`, `getattr(config, "_attn_implementation")`
        top, _, inner = node.value.partition(".")
        is_path = top == "transformers" and inner.replace(".", "_").isidentifier()
        is_private = node.value.startswith("_attn_implementation") and node.value.isidentifier()
        if is_private or (is_path and is_submodule(inner.split(".")[0])):
            yield node.value


def internals(module: Module) -> list[tuple[int, str]]:
    """The internals that a module names, each with its line."""
    return sorted(
        (getattr(node, "lineno", 0), name)
        for node in ast.walk(module.tree)
        for name in touched(node)
    )


@pytest.mark.parametrize(
    "module", modules(WITH_BENCHMARKS).values(), ids=lambda module: module.name
)
def test_internals_are_the_seams_alone(module: Module) -> None:
    if module.name.startswith(SEAM):
        return
    for line, name in internals(module):
        pytest.fail(
            f"{module.path}:{line} touches {name}. Import it from `transformers` itself if it is "
            f"there; otherwise the code that needs it belongs in {SEAM.replace('.', '/')}."
        )


def test_the_check_can_fail() -> None:
    module = parse(
        "app/bad.py",
        """
import transformers
import transformers.cache_utils
from transformers import AutoConfig, logging, masking_utils
from transformers.cache_utils import Cache
transformers.AutoTokenizer
transformers.masking_utils.causal_mask_function
config._attn_implementation_internal = "eager"
import_module("transformers.models.llama")
getattr(config, "_attn_implementation")
"transformers' own"
""",
    )
    assert internals(module) == [
        (3, "transformers.cache_utils"),
        (4, "transformers.masking_utils"),
        (5, "transformers.cache_utils.Cache"),
        (7, "transformers.masking_utils"),
        (8, "_attn_implementation_internal"),
        (9, "transformers.models.llama"),
        (10, "_attn_implementation"),
    ]
