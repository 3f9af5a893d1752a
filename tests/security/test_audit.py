"""The step that looks for known vulnerabilities: what it says and does for each answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.security.conftest import ROOT

UNREACHABLE = (
    "Traceback (most recent call last):\n  ...\nrequests.exceptions.ConnectionError: "
    "HTTPSConnectionPool(host='pypi.org', port=443): Max retries exceeded"
)
BLOCKED = "ERROR:pip_audit._cli:Tip: your network may be blocking this service. Try another"
BROKEN = "usage: pip-audit [-s SERVICE]\npip-audit: error: unrecognized arguments: --no-deps"


def package(name: str, *faults: str) -> dict[str, Any]:
    vulns = [{"id": fault, "fix_versions": ["2.0"]} for fault in faults]
    return {"name": name, "version": "1.0", "vulns": vulns}


SKIPPED = {"name": "c", "skip_reason": "not found"}


def ci(folder: Path, packages: list[dict[str, Any]] | None, complaint: str = "") -> Any:
    """The step itself, with a pip-audit that gives this answer."""
    fake = folder / "pip_audit"
    fake.mkdir()
    (fake / "__init__.py").touch()
    answer = "" if packages is None else json.dumps({"dependencies": packages, "fixes": []})
    (fake / "__main__.py").write_text(
        f"import sys\nassert '--no-deps' in sys.argv\nsys.stdout.write({answer!r})\n"
        f"sys.stderr.write({complaint!r})\nsys.exit(1)\n"
    )
    return subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "audit.py")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(folder)},
    )


def test_a_known_vulnerability_fails(tmp_path: Path) -> None:
    result = ci(tmp_path, [package("a"), package("b", "CVE-2026-1"), SKIPPED])
    assert result.returncode == 1
    assert result.stdout == (
        "b 1.0: CVE-2026-1, fixed in 2.0\n"
        "pip-audit: 2 packages, 1 known vulnerabilities; NOT CHECKED: c\n"
    )


def test_none_known_passes(tmp_path: Path) -> None:
    result = ci(tmp_path, [package("a"), package("b")])
    assert (result.returncode, result.stdout) == (
        0,
        "pip-audit: 2 packages, 0 known vulnerabilities\n",
    )


@pytest.mark.parametrize(
    ("packages", "complaint"),
    [(None, UNREACHABLE), (None, BLOCKED), ([], ""), ([SKIPPED], "")],
    ids=["no network", "blocked", "nothing", "an index without such data"],
)
def test_nobody_to_ask_passes_and_is_said(
    packages: list[dict[str, Any]] | None, complaint: str, tmp_path: Path
) -> None:
    result = ci(tmp_path, packages, complaint)
    assert result.returncode == 0
    assert result.stdout.startswith("pip-audit: NOT CHECKED. No package could be looked up")
    assert complaint in result.stderr


def test_a_broken_pip_audit_fails(tmp_path: Path) -> None:
    result = ci(tmp_path, None, BROKEN)
    assert result.returncode == 1
    assert "failed for another reason than the network" in result.stderr


def test_it_is_part_of_what_must_pass() -> None:
    assert ".ci/audit.py" in (ROOT / ".ci" / "run").read_text()
