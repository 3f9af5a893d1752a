"""The step that looks for known vulnerabilities fails on findings and on nothing else."""

from __future__ import annotations

import importlib.util
from typing import Any

from tests.security.conftest import ROOT


def load() -> Any:
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def package(name: str, *faults: str) -> dict[str, Any]:
    vulns = [{"id": fault, "fix_versions": ["2.0"]} for fault in faults]
    return {"name": name, "version": "1.0", "vulns": vulns}


def test_findings_fail_and_a_missing_network_does_not() -> None:
    verdict = load().verdict
    skipped = {"name": "c", "skip_reason": "not found"}
    for report in (None, {"dependencies": []}, {"dependencies": [skipped]}):
        assert verdict(report)[0] == 0
        assert "skipped: no network" in verdict(report)[1]
    assert verdict({"dependencies": [package("a"), skipped]}) == (
        0,
        "pip-audit: 1 packages, 0 known vulnerabilities; not asked about: c",
    )
    status, words = verdict({"dependencies": [package("a"), package("b", "CVE-2026-1")]})
    assert status == 1
    assert words.startswith("b 1.0: CVE-2026-1, fixed in 2.0\n")


def test_it_is_part_of_what_must_pass() -> None:
    assert ".ci/audit.py" in (ROOT / ".ci" / "run").read_text()
