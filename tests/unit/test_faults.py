"""Kills, full disks and damage: what a person finds afterwards is right (benchmarks/faults.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.faults import Count, run


def assert_survived(counts: list[Count]) -> None:
    assert counts
    for count in counts:
        assert not count.faults, f"{count.kind}: {count.faults[0]}"
        assert count.survived == count.tried > 0


@pytest.mark.parametrize("kind", ["SIGKILL in prefill", "SIGTERM"])
def test_a_process_that_ends_leaves_its_work_whole_or_cleanly_absent(
    kind: str, tmp_path: Path
) -> None:
    assert_survived(run(tmp_path / "home", 1, kinds=kind))


@pytest.mark.parametrize("kind", ["disk full", "not writable", "bit flip", "foreign", "clock"])
def test_the_disk_and_the_clock_never_make_an_answer_wrong(kind: str, tmp_path: Path) -> None:
    assert_survived(run(tmp_path / "home", 2, seed=1, kinds=kind))


@pytest.mark.slow
def test_a_hundred_kills(tmp_path: Path) -> None:
    counts = run(tmp_path / "home", 34, kinds="SIGKILL")
    assert_survived(counts)
    assert sum(count.tried for count in counts) >= 100
    # A test in which nothing was ever interrupted would show nothing.
    assert sum(count.resumed for count in counts) > 20


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SIGTERM", "disk full", "bit flip", "foreign", "two processes"])
def test_long_fuzz(kind: str, tmp_path: Path) -> None:
    assert_survived(run(tmp_path / "home", 30, seed=2, kinds=kind))
