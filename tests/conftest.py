"""Fixtures that several folders of tests share. Importing it imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

SAMPLES = Path(__file__).parents[1] / "assets" / "samples"


@pytest.fixture(scope="session")
def samples() -> Path:
    return SAMPLES


@pytest.fixture(scope="session")
def builtin_engine() -> Any:
    """The built-in model, in the dtype chosen for this machine; tests must leave it clean."""
    from mom_core import Engine

    return Engine.load("smollm2-135m")
