"""Fixtures that several folders of tests share. Importing it imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SAMPLES = Path(__file__).parents[1] / "assets" / "samples"


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test touches what a person has prepared: commands that are run inherit this, too."""
    folder = tmp_path_factory.mktemp("home")
    before = os.environ.get("MOM_HOME")
    os.environ["MOM_HOME"] = str(folder)
    yield folder
    if before is None:
        del os.environ["MOM_HOME"]
    else:
        os.environ["MOM_HOME"] = before


@pytest.fixture(scope="session")
def samples() -> Path:
    return SAMPLES


@pytest.fixture(scope="session")
def builtin_engine() -> Any:
    """The built-in model, in the dtype chosen for this machine; tests must leave it clean."""
    from mom_core import Engine

    return Engine.load("smollm2-135m")
