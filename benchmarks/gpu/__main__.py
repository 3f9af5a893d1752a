"""`python -m benchmarks.gpu`: all parts one after the other, or those that are named.

Each part runs in a process of its own and writes a line of JSON after every measurement to
`gpu.jsonl` in the folder `--out`, by default `$OUT`, or `benchmarks/results`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import RESULTS, ROOT

_GRACE_SECONDS = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """The program.

    Args:
        arguments: the command line's; the process's own if None.

    Returns:
        The exit status: 0 if nothing failed and nothing was wrong.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--part", type=int, action="append", help="by number; may be repeated")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or RESULTS))
    parser.add_argument("--dry-run", action="store_true", help="the same code, small, on the CPU")
    given = parser.parse_args(arguments)
    # Not at the top: `--help` needs no torch.
    from benchmarks.gpu.parts import PARTS

    chosen = given.part or list(PARTS)
    unknown = [number for number in chosen if number not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]}; the parts are {', '.join(map(str, PARTS))}")
    if len(chosen) == 1:
        return run_part(chosen[0], given.out, is_dry_run=given.dry_run)
    return max(run_apart(number, given.out, is_dry_run=given.dry_run) for number in chosen)


def run_part(number: int, folder: Path, *, is_dry_run: bool) -> int:
    """One part, here.

    Args:
        number: the part's.
        folder: for the results.
        is_dry_run: small, on the CPU.

    Returns:
        0 if nothing failed and nothing was wrong.
    """
    import torch

    from benchmarks.device import find_device
    from benchmarks.gpu.parts import DRY, PARTS, REAL
    from benchmarks.gpu.session import Session

    part = PARTS[number]
    print(f"part {number}: {part.title}", flush=True)
    session = Session(find_device(dry_run=is_dry_run), number, part.limit_seconds, folder)
    threads = torch.get_num_threads()
    if is_dry_run:
        # Tiny tensors only wait for each other.
        torch.set_num_threads(1)
    try:
        sizes = DRY if is_dry_run else REAL
        session.attempt(part.title, lambda: part.run(session, sizes))
    finally:
        torch.set_num_threads(threads)
    wrong = [line["name"] for line in session.outcomes if is_bad(line)]
    print(f"part {number}: {len(session.outcomes)} lines, wrong or failed: {wrong or 'none'}")
    return int(bool(wrong))


def is_bad(line: dict[str, object]) -> bool:
    """Whether a measurement failed, or found something wrong."""
    result = line.get("result")
    has_wrong = isinstance(result, dict) and bool(result.get("wrong"))
    return line["outcome"] == "failed" or has_wrong


def run_apart(number: int, folder: Path, *, is_dry_run: bool) -> int:
    """One part in a process of its own, ended when it does not end itself."""
    from benchmarks.gpu.parts import PARTS

    command = [sys.executable, "-m", "benchmarks.gpu", "--part", str(number), "--out", str(folder)]
    if is_dry_run:
        command.append("--dry-run")
    try:
        return subprocess.run(
            command, cwd=ROOT, timeout=PARTS[number].limit_seconds + _GRACE_SECONDS, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        print(f"part {number}: ended by force; what it had written is kept", flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
