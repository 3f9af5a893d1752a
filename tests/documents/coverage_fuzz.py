"""Fuzzing that is led by coverage: `python -m tests.documents.coverage_fuzz a.eml 120`.

Not a test of `make test`: it runs for as many seconds as it is told, on one of the kinds of
`test_fuzz.SEEDS`, and ends with the input that broke a reader, if one did (needs the extra
`fuzz`). What it finds becomes a test in `test_fuzz.py`.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["app.documents", "email", "zipfile", "tarfile"]):
    from app.documents.parsing import readers
    from app.documents.parts import Job, Opened, Refused, Section, from_json, to_json

    # Each is imported on demand otherwise, and would escape being measured.
    with contextlib.suppress(ImportError):
        import app.documents.encoding
        import app.documents.folders.archive
        import app.documents.folders.collection
        import app.documents.formats.html
        import app.documents.formats.mail
        import app.documents.formats.notebook
        import app.documents.formats.office.book
        import app.documents.formats.office.opendocument
        import app.documents.formats.office.slides
        import app.documents.formats.office.word
        import app.documents.formats.text  # noqa: F401

from tests.documents.seeds import SEEDS


def main() -> None:
    """Fuzzes until the time is over; libFuzzer's own words tell how far it came."""
    name, seconds = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="mom-fuzz-") as folder:
        seeds = Path(folder) / "seeds"
        seeds.mkdir()
        (seeds / "seed").write_bytes(SEEDS[name])
        place = Path(folder) / name

        def check(data: bytes) -> None:
            place.write_bytes(data)
            parts = list(readers.read_job(Job(path=place, name=name)))
            assert isinstance(parts[0], Opened | Refused)
            for part in parts:
                assert from_json(to_json(part).encode()) == part
                if isinstance(part, Section):
                    part.text.encode("utf-8")

        limits = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=4096"]
        atheris.Setup([sys.argv[0], str(seeds), *limits, f"-artifact_prefix={name}-"], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
