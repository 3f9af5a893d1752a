"""The reader of plain text of any kind: prose, markup, logs, data, source code."""

from __future__ import annotations

from collections.abc import Iterator

from app.documents.document import Section
from app.documents.encoding import decode_stream
from app.documents.language import language_of
from app.documents.parts import Begun, Done, Job, More, Opened, Part, Refused

READS = (
    "mom-chat reads PDF, Word, PowerPoint, Excel, OpenDocument, EPUB, HTML, e-mail, notebooks, "
    "text and source files, and folders, .zip and .tar.gz of them"
)


def read_text(job: Job) -> Iterator[Part]:
    """Yields one section, block by block."""
    size_mb = job.path.stat().st_size / 1024**2
    if size_mb > job.limits.text_mb:
        yield Refused(
            f"{job.name} is a text of {size_mb:,.0f} MB; at most {job.limits.text_mb:,} MB are "
            f"read. Split it, or {job.limits.raising('text_mb')}."
        )
        return
    with job.path.open("rb") as file:
        blocks = decode_stream(file)
        if blocks is None:
            yield Refused(f"{job.name} is not a text file. {READS}; convert it to one of these.")
            return
        yield Opened("text", 1)
        for _ in job.units(1):
            yield Begun(0, job.name)
            yield Section(job.name, next(blocks, ""), language=language_of(job.name))
            for block in blocks:
                yield More(block)
            yield Done(0)
