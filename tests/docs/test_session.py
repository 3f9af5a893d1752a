"""Whatever a measurement does, its line is written and the next one runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.device import Device
from benchmarks.gpu.session import Session
from benchmarks.record import records


def raising(error: BaseException) -> Any:
    def run() -> dict[str, Any]:
        raise error

    return run


def slow() -> dict[str, Any]:
    for _ in range(1000):
        time.sleep(0.01)
    return {}


@pytest.mark.parametrize(
    ("run", "outcome", "words"),
    [
        (lambda: {"seconds": 1.0}, "measured", None),
        (raising(torch.OutOfMemoryError("CUDA out of memory. Tried")), "out of memory", "Tried"),
        (raising(KeyError("typo")), "failed", "typo"),
        (slow, "cut off", "time of this part is up"),
    ],
)
def test_outcomes(run: Any, outcome: str, words: str | None, tmp_path: Path) -> None:
    session = Session(Device(), 1, 2.0, tmp_path)
    result = session.measure("it", run)
    (line,) = records("gpu", tmp_path)
    assert line["outcome"] == outcome
    assert (result is None) == (outcome != "measured")
    if words is not None:
        assert words in line["why"]
    assert session.remaining_seconds <= 2.0


def test_what_would_take_too_long_is_skipped(tmp_path: Path) -> None:
    session = Session(Device(), 1, 10.0, tmp_path)
    assert session.measure("long", slow, expected_seconds=60.0) is None
    (line,) = records("gpu", tmp_path)
    assert line["outcome"] == "skipped"
    assert line["why"].startswith("it would take about 60 s, and ")


def test_a_failure_between_measurements_is_a_line_too(tmp_path: Path) -> None:
    session = Session(Device(), 1, 10.0, tmp_path)
    session.attempt("steps", raising(RuntimeError("no room for the model")))
    session.attempt("more", lambda: None)
    (line,) = records("gpu", tmp_path)
    assert (line["name"], line["outcome"]) == ("steps", "failed")
    assert "no room for the model" in line["why"]
