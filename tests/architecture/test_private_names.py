"""Nobody reaches into what is private: of our own classes and modules never, of others by list."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.architecture.source import Module, modules, ours

# Private names of other libraries, with the file that uses each and the reason.
_KERNELS = "torch gives the log-sum-exp of attention only by its kernels themselves"
_SWITCH = "transformers has no public way to change a loaded model's attention for one call"
FOREIGN: dict[tuple[str, str], str] = {
    **{
        ("mom_core/partial_attention.py", f"_scaled_dot_product_{kernel}"): _KERNELS
        for kernel in ("flash_attention_for_cpu", "flash_attention", "efficient_attention")
    },
    ("mom_core/forecast/recurrent.py", "_subclasses"): "torch's fake tensors live there",
    ("mom_core/forecast/tracker.py", "_cdata"): "the identity of a tensor's storage",
    ("mom_core/forecast/tracker.py", "_python_dispatch"): "torch's dispatch modes live there",
    **{
        (f"mom_core/model/seam/{file}.py", "_attn_implementation_internal"): _SWITCH
        for file in ("cache", "decoder", "plain")
    },
    ("mom_core/model/seam/decoder.py", "_modules"): "stands in for the list of layers",
    ("mom_core/model/seam/patches.py", "_modules"): "a stand-in shows its layer's modules",
    ("mom_core/model/seam/plain_layer.py", "_parameters"): "weights that were replaced are seen",
    ("mom_core/model/seam/plain_layer.py", "_forward_hooks"): "a layer with hooks runs itself",
    ("mom_core/model/seam/plain_layer.py", "_forward_pre_hooks"): "the same",
    ("app/documents/formats/office/slides.py", "_p"): "python-pptx hides a paragraph's XML there",
    ("app/documents/parsing/worker.py", "_exit"): "os: ends a process without its clean-up",
    ("app/server/app.py", "_queue"): "Gradio's queue polls a thousand times a second",
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def own_names(tree: ast.Module) -> dict[str, set[str]]:
    """Private names that each class defines, by class."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        names = found.setdefault(node.name, set())
        for part in ast.walk(node):
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) and is_private(part.name):
                names.add(part.name)
            elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                names.add(part.id)
            elif (
                isinstance(part, ast.Attribute)
                and isinstance(part.value, ast.Name)
                and part.value.id in ("self", "cls")
            ):
                names.add(part.attr)
    return found


def reaches(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Private attributes that are not of `self`, `cls` or another instance of the same class."""
    classes = own_names(tree)

    def walk(node: ast.AST, inside: frozenset[str]) -> Iterator[tuple[str, int]]:
        if isinstance(node, ast.ClassDef):
            inside = inside | {name for name in classes[node.name] if is_private(name)}
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            is_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if not is_self and node.attr not in inside and not node.attr.startswith("_fields"):
                yield node.attr, node.lineno
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    yield from walk(tree, frozenset())


def imported(tree: ast.Module) -> Iterator[tuple[str, str, int]]:
    """Private modules and names that are imported: the module, the name, the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                parts = [*node.module.split("."), alias.name]
                if any(map(is_private, parts)):
                    yield node.module, next(filter(is_private, parts)), node.lineno


def of_ours() -> set[str]:
    """Private names that classes of ours define."""
    return {
        name
        for module in modules().values()
        for names in own_names(module.tree).values()
        for name in names
        if is_private(name)
    }


def foreign_uses(module: Module) -> Iterator[tuple[str, str, int]]:
    known = of_ours()
    for name, line in reaches(module.tree):
        if (str(module.path), name) in FOREIGN:
            yield str(module.path), name, line
            continue
        assert name not in known, (
            f"{module.path}:{line} reaches for {name}, which is private: "
            "give its class a public way, or move the code there."
        )
        yield str(module.path), name, line
    for source, name, line in imported(module.tree):
        assert not ours(source), f"{module.path}:{line} imports {name}, which is private."
        yield str(module.path), name, line


def test_private_names_are_left_alone() -> None:
    used = set()
    for module in modules().values():
        for path, name, line in foreign_uses(module):
            assert (path, name) in FOREIGN, (
                f"{path}:{line} uses {name}, a private name of another library. Find a public "
                "one, or add it to the list with the reason."
            )
            used.add((path, name))
    unused = FOREIGN.keys() - used
    assert not unused, f"no longer used, so they leave the list: {sorted(unused)}"
    assert all(FOREIGN.values())


def test_the_check_can_fail() -> None:
    tree = ast.parse(
        "class A:\n"
        "    def __init__(self): self._x = 1\n"
        "    def same(self, other): return other._x\n"
        "def reach(a): return a._x\n"
        "from mom_core.engine import _strategy\n"
    )
    assert list(reaches(tree)) == [("_x", 4)]
    assert list(imported(tree)) == [("mom_core.engine", "_strategy", 5)]
