"""One run as one line of JSON: what was measured, where, with which versions, at which commit."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"

# What decides how fast a CPU is for us, as the kernel names it.
_CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
_PACKAGES = ("torch", "transformers", "accelerate")


def describe_run(packages: Iterable[str] = _PACKAGES) -> dict[str, Any]:
    """The machine, the versions and the commit of this run."""
    name, features = _cpu()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": _commit(),
        "machine": {
            "cpu": name,
            "cpu_features": features,
            "cores": os.cpu_count(),
            "architecture": platform.machine(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        },
        "versions": {
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in packages},
        },
    }


def append(name: str, record: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Adds a line to `<folder>/<name>.jsonl`.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
    return path


def records(name: str, folder: Path = RESULTS) -> list[dict[str, Any]]:
    """All lines of `<folder>/<name>.jsonl`, oldest first; none if there is no such file."""
    path = folder / f"{name}.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def _cpu() -> tuple[str, list[str]]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor(), []
    fields = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    flags = fields.get("flags", fields.get("Features", "")).split()
    return fields.get("model name", platform.machine()), [f for f in _CPU_FEATURES if f in flags]


def _commit() -> str:
    """What git calls this tree; empty outside of a checkout."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
    except OSError:
        return ""
    return described.stdout.strip()
