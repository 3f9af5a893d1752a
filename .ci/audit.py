"""Known vulnerabilities of the pinned packages, by pip-audit; says so when nobody could be asked.

`python .ci/audit.py`: exit status 0 if none is known or no service could be reached, 1 if any.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


def audit() -> dict[str, Any] | None:
    """The report of pip-audit; None where its service cannot be reached."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(CONSTRAINTS), "--no-deps"]
    options = ["--disable-pip", "--format", "json", "--progress-spinner", "off", "--timeout", "15"]
    result = subprocess.run([*command, *options], capture_output=True, text=True)
    try:
        report: dict[str, Any] = json.loads(result.stdout)
    except ValueError:
        print(result.stderr.strip()[-500:], file=sys.stderr)
        if "ConnectionError" in result.stderr or "service" in result.stderr.lower():
            return None
        raise SystemExit("pip-audit failed for another reason than the network.") from None
    return report


def verdict(report: dict[str, Any] | None) -> tuple[int, str]:
    """Exit status and the words to print."""
    known = [] if report is None else report["dependencies"]
    asked = [one for one in known if "skip_reason" not in one]
    if not asked:
        return 0, "pip-audit: skipped: no network, or an index without vulnerability data."
    found = [(one, fault) for one in asked for fault in one["vulns"]]
    lines = [
        f"{one['name']} {one['version']}: {fault['id']}, "
        f"fixed in {', '.join(fault['fix_versions']) or 'no version yet'}"
        for one, fault in found
    ]
    unasked = [one["name"] for one in known if "skip_reason" in one]
    lines.append(
        f"pip-audit: {len(asked)} packages, {len(found)} known vulnerabilities"
        + (f"; not asked about: {', '.join(unasked)}" if unasked else "")
    )
    return int(bool(found)), "\n".join(lines)


if __name__ == "__main__":
    status, words = verdict(audit())
    print(words)
    sys.exit(status)
