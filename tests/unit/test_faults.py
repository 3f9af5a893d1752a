"""Kills, full disks and damage: what a person finds afterwards is right (benchmarks/faults.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.faults import Count, report, run


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


@pytest.mark.parametrize(
    "kind", ["disk full", "memory full", "not writable", "bit flip", "foreign", "clock"]
)
def test_disk_memory_and_clock_never_make_an_answer_wrong(kind: str, tmp_path: Path) -> None:
    assert_survived(run(tmp_path / "home", 2, seed=1, kinds=kind))


def test_the_table_tells_what_was_not_survived() -> None:
    bad = Count("bit flip", tried=2, survived=1, faults=["AssertionError: a wrong answer"])
    lines = report([Count("SIGTERM", tried=3, survived=3, resumed=2), bad]).splitlines()
    assert [line.split()[-3:] for line in lines[1:3]] == [["3", "3", "2"], ["2", "1", "0"]]
    assert lines[3].strip() == "AssertionError: a wrong answer"
    assert lines[4].split() == ["all", "5", "4", "2"]
    with pytest.raises(AssertionError, match="bit flip: AssertionError: a wrong answer"):
        assert_survived([bad])


@pytest.mark.slow
def test_a_hundred_kills(tmp_path: Path) -> None:
    counts = run(tmp_path / "home", 34, kinds="SIGKILL")
    assert_survived(counts)
    assert sum(count.tried for count in counts) >= 100
    # A test in which nothing was ever interrupted would show nothing.
    assert sum(count.resumed for count in counts) > 20


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["SIGTERM", "disk full", "memory", "bit flip", "foreign", "two processes"]
)
def test_long_fuzz(kind: str, tmp_path: Path) -> None:
    assert_survived(run(tmp_path / "home", 30, seed=2, kinds=kind))
