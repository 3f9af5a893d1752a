"""Office files are .zip packages of XML: opened with care, every fault one exception."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lxml import etree

from app.documents.parts import Job
from mom_core.errors import DocumentError

_MEMBERS_MAX = 20_000


@contextmanager
def package(job: Job) -> Iterator[zipfile.ZipFile]:
    """The package of an office file, checked before any library trusts it.

    Raises:
        DocumentError: damaged, locked, or a bomb; also when something within the block fails.
    """
    try:
        with zipfile.ZipFile(job.path) as archive:
            _check(job, archive)
            yield archive
    except DocumentError:
        raise
    except Exception as fault:
        # A broken package may raise anything in the libraries that read it.
        raise DocumentError(
            f"{job.name} cannot be read: it is damaged or not what its kind promises "
            f"({type(fault).__name__}: {str(fault)[:120]}). Open it in an office program and save "
            "it again, or save it as a PDF."
        ) from fault


def _check(job: Job, archive: zipfile.ZipFile) -> None:
    infos = archive.infolist()
    # Python's zipfile never gives more bytes than announced, so announced ones bound the rest.
    unpacked = sum(info.file_size for info in infos)
    packed = max(1, job.path.stat().st_size)
    limits = job.limits
    too_far = unpacked > limits.ratio * packed and unpacked > limits.memory_mb * 1024**2 // 8
    if len(infos) > _MEMBERS_MAX or unpacked > limits.unpacked_mb * 1024**2 or too_far:
        raise DocumentError(
            f"{job.name} unpacks to {unpacked / 1024**2:,.0f} MB in {len(infos):,} parts; at most "
            f"{limits.unpacked_mb:,} MB and {limits.ratio} times its own size are read. "
            f"Save it again or as a PDF; {limits.raising('ratio')}."
        )


def parse_xml(data: bytes) -> Any:
    """The root of an XML part; entities and outside references are never followed."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    return etree.fromstring(data, parser)
