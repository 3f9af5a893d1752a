"""Known vulnerabilities of the pinned packages, by pip-audit; says so when nobody could be asked.

`python .ci/audit.py`: exit status 1 if any is known, or if pip-audit itself is broken; 0 if none
is, or if no service could be reached. The last case is said in capitals: it proves nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
_MOST_SECONDS = 300
# What pip-audit says, or lets through, when its service gives no proper answer.
_NETWORK_SIGNS = (
    "requests.exceptions.",
    "urllib3.exceptions.",
    "pip_audit._service.interface.ServiceError",
    "your network may be blocking this service",
)


def audit() -> dict[str, Any] | None:
    """The report of pip-audit; None where its service cannot be reached.

    Raises:
        SystemExit: it failed for another reason.
    """
    command = [sys.executable, "-m", "pip_audit", "-r", str(CONSTRAINTS), "--no-deps"]
    options = ["--disable-pip", "--format", "json", "--progress-spinner", "off", "--timeout", "15"]
    try:
        result = subprocess.run(
            [*command, *options], capture_output=True, text=True, timeout=_MOST_SECONDS
        )
    except subprocess.TimeoutExpired:
        print(f"pip-audit had no answer after {_MOST_SECONDS} seconds.", file=sys.stderr)
        return None
    try:
        report: dict[str, Any] = json.loads(result.stdout)
    except ValueError:
        print(result.stderr.strip()[-500:], file=sys.stderr)
        if any(sign in result.stderr for sign in _NETWORK_SIGNS):
            return None
        raise SystemExit("pip-audit failed for another reason than the network.") from None
    return report


def verdict(report: dict[str, Any] | None) -> tuple[int, str]:
    """Exit status and the words to print."""
    known = [] if report is None else report["dependencies"]
    asked = [one for one in known if "skip_reason" not in one]
    if not asked:
        return 0, (
            "pip-audit: NOT CHECKED. No package could be looked up: there is no network, or only "
            "an index without vulnerability data. Run this where pypi.org can be reached."
        )
    found = [(one, fault) for one in asked for fault in one["vulns"]]
    lines = [
        f"{one['name']} {one['version']}: {fault['id']}, "
        f"fixed in {', '.join(fault['fix_versions']) or 'no version yet'}"
        for one, fault in found
    ]
    unasked = [one["name"] for one in known if "skip_reason" in one]
    lines.append(
        f"pip-audit: {len(asked)} packages, {len(found)} known vulnerabilities"
        + (f"; NOT CHECKED: {', '.join(unasked)}" if unasked else "")
    )
    return int(bool(found)), "\n".join(lines)


if __name__ == "__main__":
    status, words = verdict(audit())
    print(words)
    sys.exit(status)
