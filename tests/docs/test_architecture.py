"""docs/architecture.md names the modules, the ranks and the hops that there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from benchmarks.record import ROOT

TEXT = (ROOT / "docs" / "architecture.md").read_text()
RANKS_HELD_IN = ROOT / "tests" / "architecture" / "test_imports.py"
# Folders of which the document says in a sentence what they hold.
IN_A_SENTENCE = ("app/documents/", "app/ui/", "mom_core/model/catalogue/")
# | 3 | `app/workspace/uploads.py` | `place`, `finish` | ... |
HOP = re.compile(r"^\| (\d+) \| `([^`]+)` \| ((?:`[^`]+`(?:, )?)+) \|", re.MULTILINE)

Hop = tuple[int, str, list[str]]


def walks(text: str) -> list[list[Hop]]:
    """Each walk of the document: number, file and functions of its hops."""
    found: list[list[Hop]] = []
    for number, path, functions in HOP.findall(text):
        if number == "1":
            found.append([])
        found[-1].append((int(number), path, re.findall(r"`([^`]+)`", functions)))
    return found


def has_function(path: Path, name: str) -> bool:
    """Whether a Python or JavaScript file defines a function of that name."""
    text = path.read_text()
    if path.suffix == ".js":
        return re.search(rf"\b(const {name} =|function {name}\b|{name}\()", text) is not None
    return any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
        for node in ast.walk(ast.parse(text))
    )


def faults(walk: list[Hop]) -> list[str]:
    """What is wrong with a walk."""
    wrong = []
    for place, (number, path, functions) in enumerate(walk, 1):
        if number != place:
            wrong.append(f"hop {place} has the number {number}")
        if path in [other for _, other, _ in walk[: place - 1]]:
            wrong.append(f"{path} is visited twice")
        if not (ROOT / path).is_file():
            wrong.append(f"{path} is not there")
            continue
        wrong += [
            f"{path} has no {name}" for name in functions if not has_function(ROOT / path, name)
        ]
    return wrong


def ladder(package: str) -> str:
    """The ranks of a package, from the ground to the top, as the document writes them."""
    tree = ast.parse(RANKS_HELD_IN.read_text())
    ranks: dict[str, int] = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "RANKS"
    )
    levels: dict[int, list[str]] = {}
    for name, rank in ranks.items():
        if name.startswith(f"{package}."):
            levels.setdefault(rank, []).append(name.removeprefix(f"{package}."))
    return " < ".join(", ".join(levels[rank]) for rank in sorted(levels))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_walk_names_what_exists_and_nothing_twice(number: int) -> None:
    assert len(walks(TEXT)) == 3
    assert faults(walks(TEXT)[number]) == []


@pytest.mark.parametrize("package", ["mom_core", "app"])
def test_every_module_has_a_line(package: str) -> None:
    paths = [path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*.py")]
    missing = [
        path
        for path in paths
        if not path.endswith(("__init__.py", "__main__.py"))
        and not path.startswith(IN_A_SENTENCE)
        and f"| `{path.removeprefix(f'{package}/')}` |" not in TEXT
    ]
    assert missing == [], "give each of these a line in docs/architecture.md"


def test_every_module_with_a_line_exists() -> None:
    named = re.findall(r"^\| `([a-z_/]+(?:\.py|/))` \|", TEXT, re.MULTILINE)
    assert len(named) > 100
    bases = (ROOT / "mom_core", ROOT / "app", ROOT)
    assert [name for name in named if not any((base / name).exists() for base in bases)] == []


@pytest.mark.parametrize("package", ["mom_core", "app"])
def test_the_ranks_are_those_of_the_import_test(package: str) -> None:
    wanted = ladder(package)
    assert wanted in " ".join(TEXT.split()), f"docs/architecture.md should say: {wanted}"


def test_the_checks_can_fail() -> None:
    bad = (
        "| 1 | `mom_core/engine.py` | `generate`, `nothing` | a |\n"
        "| 3 | `mom_core/engine.py` | `generate` | b |\n"
        "| 3 | `mom_core/nothing.py` | `run` | c |\n"
    )
    assert faults(walks(bad)[0]) == [
        "mom_core/engine.py has no nothing",
        "hop 2 has the number 3",
        "mom_core/engine.py is visited twice",
        "mom_core/nothing.py is not there",
    ]
    script = ROOT / "app" / "ui" / "static" / "wording.js"
    assert has_function(script, "tokens")
    assert not has_function(script, "nothing")
