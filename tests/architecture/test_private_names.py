"""No file reaches into the private names of a class or module that is not its own.

`x._name` is allowed where x is `self`, `cls` or `super()`, and inside a class that itself defines
`_name`, for other instances of it. A library's private names are allowed where `FOREIGN` lists
them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from tests.architecture.source import WITH_BENCHMARKS, Module, modules, parse

_KERNELS = "torch returns the log-sum-exp of attention only from its kernels themselves"
_FAKE = "torch offers its fake tensors nowhere else"
# Private names of libraries, with the file that uses each and why there is no public way.
FOREIGN: dict[tuple[str, str], str] = {
    **{
        ("mom_core/partial_attention.py", f"_scaled_dot_product_{kernel}"): _KERNELS
        for kernel in ("flash_attention_for_cpu", "flash_attention", "efficient_attention")
    },
    ("benchmarks/paper/simulate.py", "torch._subclasses"): _FAKE,
    ("mom_core/forecast/recurrent.py", "torch._subclasses"): _FAKE,
    ("mom_core/forecast/tracker.py", "torch.utils._python_dispatch"): (
        "torch offers its dispatch modes nowhere else"
    ),
    ("mom_core/forecast/tracker.py", "_cdata"): "the identity of a tensor's storage",
    ("mom_core/model/seam/patches.py", "_attn_implementation_internal"): (
        "transformers has no public way to change a loaded model's attention for one call"
    ),
    ("mom_core/model/seam/plain_layer.py", "_forward_hooks"): (
        "torch has no public way to ask whether a module has hooks"
    ),
    ("mom_core/model/seam/plain_layer.py", "_forward_pre_hooks"): (
        "torch has no public way to ask whether a module has hooks"
    ),
    ("mom_core/native/library.py", "_fields"): (
        "the names of a NamedTuple's fields; Python documents it"
    ),
    ("app/documents/formats/office/slides.py", "_p"): (
        "python-pptx has no public way to a paragraph's XML"
    ),
    ("app/documents/parsing/worker.py", "_exit"): (
        "os._exit ends a process without its clean-up; Python documents it"
    ),
    ("app/server/app.py", "_queue"): (
        "gradio has no public way to slow its queue, which polls a thousand times a second"
    ),
}


@dataclass(frozen=True)
class Reach:
    """One use of a private name.

    Args:
        name: the private name, or the dotted name of a private module.
        line: the line in the file, from 1.
        code: the expression or statement.
    """

    name: str
    line: int
    code: str


def is_private(name: str) -> bool:
    """Whether a name begins with an underscore and is not a dunder."""
    return name.startswith("_") and not name.endswith("__")


def is_own(value: ast.expr) -> bool:
    """Whether an expression is `self`, `cls` or `super()`."""
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id == "super"
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def defined_by(node: ast.ClassDef) -> set[str]:
    """The names that a class defines: methods, fields, slots, and attributes set on `self`."""
    names = {
        inner.attr
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute)
        and isinstance(inner.ctx, ast.Store)
        and is_own(inner.value)
    }
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            for inner in ast.walk(statement):
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                    names.add(inner.id)
                elif isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                    # `__slots__ = ("_name",)`
                    names.add(inner.value)
    return names


def imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """The private names that an import brings: a private module's dotted name, or one name."""
    module = getattr(node, "module", None) or ""
    for alias in node.names:
        place = alias.name if isinstance(node, ast.Import) else module
        if any(is_private(part) for part in place.split(".")):
            yield place
        elif isinstance(node, ast.ImportFrom) and is_private(alias.name):
            yield alias.name


def reaches(node: ast.AST, own: frozenset[str] = frozenset()) -> Iterator[Reach]:
    """Every use of a private name below a node that is not a class's own.

    Args:
        node: the root of a syntax tree.
        own: the names that the classes around it define.
    """
    if isinstance(node, ast.ClassDef):
        own = own | defined_by(node)
    found: list[tuple[str, ast.expr | None]] = []
    if isinstance(node, ast.Attribute):
        found = [(node.attr, node.value)]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
        # `getattr(x, "_name")` is the same reach in other words.
        if node.func.id in ("getattr", "setattr", "hasattr", "delattr"):
            value, name = node.args[:2]
            found = [(name.value, value)] if isinstance(name, ast.Constant) else []
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (Reach(name, node.lineno, ast.unparse(node)) for name in imported(node))
    for name, value in found:
        if is_private(name) and name not in own and not (value and is_own(value)):
            yield Reach(name, getattr(node, "lineno", 0), ast.unparse(node))
    for child in ast.iter_child_nodes(node):
        yield from reaches(child, own)


def all_reaches() -> Iterator[tuple[Module, Reach]]:
    """Every use of a private name in our code."""
    for module in modules(WITH_BENCHMARKS).values():
        for reach in reaches(module.tree):
            yield module, reach


def test_private_names_are_left_alone() -> None:
    found = [
        f"{module.path}:{reach.line} reaches for {reach.name} ({reach.code}). If it is ours, give "
        "its class a public name for it or move the code there; if it is a library's, find a "
        "public way or add it to FOREIGN with the reason."
        for module, reach in all_reaches()
        if (str(module.path), reach.name) not in FOREIGN
    ]
    assert not found, "\n".join(found)


def test_listed_names_are_still_used() -> None:
    unused = FOREIGN.keys() - {(str(module.path), reach.name) for module, reach in all_reaches()}
    assert not unused, f"no longer used, so they leave the list: {sorted(unused)}"
    assert all(FOREIGN.values())


def test_the_check_can_fail() -> None:
    module = parse(
        "app/bad.py",
        """
from mom_core.engine import _strategy, Engine
from app._hidden import helper
import torch._subclasses
class A:
    _static: int = 0
    def __init__(self, other):
        self._x = other._x
        super()._later()
        other._static, other.__dict__
        other._foreign
        getattr(other, "_named", None)
        setattr(self, "_named", 1)
def reach(a): return a._x
""",
    )
    assert [(reach.line, reach.name) for reach in reaches(module.tree)] == [
        (2, "_strategy"),
        (3, "app._hidden"),
        (4, "torch._subclasses"),
        (11, "_foreign"),
        (12, "_named"),
        (14, "_x"),
    ]
