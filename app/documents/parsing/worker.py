"""The process in which files are parsed, apart: `-m app.documents.parsing.worker`.

It takes one job on stdin and writes parts on stdout, a line each. It limits its own memory and
time first, so that a hostile or broken file can end nothing but this process.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace

from app.documents.document import Section
from app.documents.parts import OUT_OF_MEMORY, Job, More, Part, job_from_json, to_json

_LINE_CHARACTERS = 1_000_000
_FILE_BYTES_MAX = 64 * 1024**3


def main() -> None:
    """Reads the job and writes its parts until everything is sent or nobody listens."""
    from app.documents.parsing.readers import read_job

    job = job_from_json(sys.stdin.readline())
    out = sys.stdout.buffer
    # Libraries that print must not get between the parts.
    sys.stdout = sys.stderr
    _limit(job)
    try:
        for part in read_job(job):
            for piece in _pieces(part):
                out.write(to_json(piece).encode() + b"\n")
            out.flush()
    except BrokenPipeError:
        os._exit(0)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)


def _pieces(part: Part) -> Iterator[Part]:
    """Long texts in several lines, as nobody takes a line without end."""
    if not isinstance(part, Section) or len(part.text) <= _LINE_CHARACTERS:
        yield part
        return
    yield replace(part, text=part.text[:_LINE_CHARACTERS])
    for start in range(_LINE_CHARACTERS, len(part.text), _LINE_CHARACTERS):
        yield More(part.text[start : start + _LINE_CHARACTERS])


def _limit(job: Job) -> None:
    with contextlib.suppress(ImportError):
        # Not on Windows, where the program that listens keeps the time alone.
        import resource

        memory = job.limits.memory_mb * 1024**2
        for kind, most in (
            (resource.RLIMIT_AS, memory),
            (resource.RLIMIT_CPU, job.limits.seconds),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_FSIZE, min(_FILE_BYTES_MAX, job.limits.unpacked_mb * 1024**2)),
        ):
            _, hard = resource.getrlimit(kind)
            if hard != resource.RLIM_INFINITY:
                most = min(most, hard)
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(kind, (most, hard))


if __name__ == "__main__":
    main()
