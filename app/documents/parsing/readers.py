"""Which reader reads what. Each is imported only when a file needs it: starting must be quick."""

from __future__ import annotations

import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from app.documents.parts import Job, Part, Refused
from app.documents.wording import count
from mom_core.errors import DocumentError

# Their form must be seen whole to be understood: memory grows with the file.
_WHOLE = {"html": "a web page", "notebook": "a notebook", "mail": "an e-mail"}


def read_job(job: Job) -> Iterator[Part]:
    """All parts of one dropped thing; whatever cannot be read ends with `Refused`."""
    try:
        yield from _read(job)
    except DocumentError as fault:
        yield Refused(str(fault))
    except PermissionError:
        yield Refused(f"{job.name} may not be read: permission was denied.")
    except OSError as fault:
        yield Refused(f"{job.name} cannot be read: {fault.strerror or fault}.")
    except RecursionError:
        yield Refused(f"{job.name} is nested too deeply to be read. Save it as a PDF or text.")


def _read(job: Job) -> Iterator[Part]:
    from app.documents.sniff import sniff

    path = job.path
    if path.is_dir():
        yield from _read_folder(job)
        return
    if not path.exists():
        raise DocumentError(f"{job.name} was not found. Check the path: {path}")
    if not path.is_file():
        raise DocumentError(f"{job.name} is not a regular file.")
    size = path.stat().st_size
    if not size:
        raise DocumentError(f"{job.name} is empty: there is nothing to read in it.")
    if size > job.limits.file_mb * 1024**2:
        raise DocumentError(
            f"{job.name} has {size / 1024**2:,.0f} MB; at most {job.limits.file_mb:,} MB are read. "
            f"Split it, or {job.limits.raising('file_mb')}."
        )
    kind = sniff(path, job.name)
    if job.options.pages is not None and kind != "pdf":
        raise _without_pages(job)
    yield from read_file(job, kind)


def read_file(job: Job, kind: str) -> Iterator[Part]:
    """Reads a file by the reader that `sniff` named.

    Raises:
        DocumentError: it would have to be read whole, and is too large for that.
    """
    if kind in _WHOLE and job.path.stat().st_size > job.limits.member_mb * 1024**2:
        raise DocumentError(
            f"{job.name} is {_WHOLE[kind]} of more than {job.limits.member_mb:,} MB, and such a "
            f"file has to be read whole. Save it as text, or {job.limits.raising('member_mb')}."
        )
    match kind:
        case "pdf":
            from app.documents.formats.pdf.reader import read_pdf

            return read_pdf(job)
        case "docx":
            from app.documents.formats.office.word import read_word

            return read_word(job)
        case "pptx":
            from app.documents.formats.office.slides import read_slides

            return read_slides(job)
        case "xlsx" | "xls" | "ods":
            from app.documents.formats.office.sheets import read_sheets

            return read_sheets(job)
        case "odt":
            from app.documents.formats.office.opendocument import read_opendocument_text

            return read_opendocument_text(job)
        case "odp":
            from app.documents.formats.office.opendocument import read_opendocument_slides

            return read_opendocument_slides(job)
        case "epub":
            from app.documents.formats.office.book import read_book

            return read_book(job)
        case "html":
            from app.documents.formats.html import read_html

            return read_html(job)
        case "notebook":
            from app.documents.formats.notebook import read_notebook

            return read_notebook(job)
        case "mail":
            from app.documents.formats.mail import read_mail

            return read_mail(job)
        case "zip" | "tar" | "gzip" | "bzip2" | "xz":
            return _read_archive(job, kind)
        case _:
            from app.documents.formats.text import read_text

            return read_text(job)


def _read_folder(job: Job) -> Iterator[Part]:
    from app.documents.folders.collection import read_entries
    from app.documents.folders.folder import folder_entries, uploaded_entries

    if job.options.pages is not None:
        raise _without_pages(job)
    entries = uploaded_entries(job) if job.is_upload else folder_entries(job)
    yield from read_entries(job, entries, read_file)


def _without_pages(job: Job) -> DocumentError:
    return DocumentError(
        f"{job.name} is not a PDF, so it has no pages to choose from. Leave out --pages, or give "
        "PDFs only."
    )


def _read_archive(job: Job, kind: str) -> Iterator[Part]:
    from app.documents.budget import Budget
    from app.documents.folders.archive import BROKEN, damaged, inflate, tar_entries, zip_entries
    from app.documents.folders.collection import read_entries

    if job.nesting >= job.limits.nesting:
        raise DocumentError(
            f"{job.name} is an archive within {count(job.nesting, 'archive')}, which is deeper "
            f"than is read. Unpack it once and drop what is inside, or "
            f"{job.limits.raising('nesting')}."
        )
    budget = job.budget or Budget(job.name, job.limits)
    job = replace(job, budget=budget, nesting=job.nesting + 1)
    try:
        if kind == "zip":
            with zipfile.ZipFile(job.path) as zipped:
                yield from read_entries(job, zip_entries(job, zipped), read_file)
        elif kind == "tar":
            with tarfile.open(job.path, "r:") as tape:
                yield from read_entries(job, tar_entries(job, tape), read_file)
        else:
            with tempfile.TemporaryDirectory(prefix="mom-read-") as folder:
                place = Path(folder) / "inflated"
                inflate(job, kind, place)
                yield from _read_inflated(replace(job, path=place))
    except BROKEN as fault:
        raise damaged(job, fault) from fault


def _read_inflated(job: Job) -> Iterator[Part]:
    """What was in a compressed file: a tar, or one file such as a log."""
    from app.documents.folders.archive import inflated_name
    from app.documents.sniff import sniff

    inner = replace(job, name=inflated_name(job.name))
    kind = sniff(job.path, inner.name)
    if kind == "tar":
        # The two layers of a .tar.gz are one archive.
        inner = replace(job, nesting=job.nesting - 1)
        assert job.budget is not None
        job.budget.give_back(job.path.stat().st_size)
    yield from read_file(inner, kind)
