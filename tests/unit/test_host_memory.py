"""How much memory there is where control groups limit it."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from mom_core.hardware import host

MIB = 2**20


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(host, "_CGROUPS", tmp_path / "self")
    monkeypatch.setattr(host, "_CGROUP_V2", (tmp_path / "fs", "memory.max"))
    monkeypatch.setattr(host, "_CGROUP_V1", (tmp_path / "fs" / "memory", "memory.limit_in_bytes"))
    return tmp_path


def group(tree: Path, path: str, limit: str, name: str = "memory.max") -> None:
    folder = tree / "fs" / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"{limit}\n")


def test_without_groups_it_is_the_machines(tree: Path) -> None:
    assert host.host_total_bytes() == psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("own", "parent", "root", "expected"),
    [
        ("max", "max", "max", None),
        (f"{300 * MIB}", "max", "max", 300),
        # What holds a group holds all groups in it.
        ("max", f"{200 * MIB}", "max", 200),
        (f"{300 * MIB}", f"{200 * MIB}", "max", 200),
        (f"{300 * MIB}", f"{200 * MIB}", f"{100 * MIB}", 100),
        (f"{2**60}", "max", "max", None),
    ],
)
def test_the_least_limit_up_the_tree_holds(
    tree: Path, own: str, parent: str, root: str, expected: int | None
) -> None:
    (tree / "self").write_text("0::/user.slice/app.scope\n")
    group(tree, "user.slice/app.scope", own)
    group(tree, "user.slice", parent)
    group(tree, ".", root)
    group(tree, "system.slice", f"{MIB}")
    total = psutil.virtual_memory().total
    assert host.host_total_bytes() == (total if expected is None else expected * MIB)


def test_the_first_version_has_a_tree_of_its_own(tree: Path) -> None:
    (tree / "self").write_text("5:cpu,cpuacct:/other\n3:memory:/docker/abc\n")
    name = "memory.limit_in_bytes"
    group(tree, "memory/docker/abc", f"{9223372036854771712}", name)
    group(tree, "memory/docker", f"{400 * MIB}", name)
    group(tree, "memory/other", f"{MIB}", name)
    assert host.host_total_bytes() == 400 * MIB


def test_a_container_sees_its_own_group_as_the_root(tree: Path) -> None:
    # The path begins outside of what is mounted inside.
    (tree / "self").write_text("0::/kubepods/pod1/container2\n")
    group(tree, ".", f"{500 * MIB}")
    assert host.host_total_bytes() == 500 * MIB
