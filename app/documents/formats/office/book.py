"""E-books (.epub): one section a chapter file, in the order of the book's spine."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote
from zipfile import ZipFile

from app.documents.document import Chapter, Section
from app.documents.formats.html import html_to_text
from app.documents.formats.office.packages import package, parse_xml
from app.documents.parts import Begun, Done, Job, Note, Opened, Part
from mom_core.errors import DocumentError

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_RIGHTS = "META-INF/rights.xml"


def read_book(job: Job) -> Iterator[Part]:
    """Yields the chapters."""
    with package(job) as archive:
        if _RIGHTS in archive.namelist() and _ENCRYPTION in archive.namelist():
            raise DocumentError(
                f"{job.name} is protected against copying (DRM), so its text cannot be read. "
                "Use a copy without protection."
            )
        paths = _spine(archive)
        yield Opened("book", len(paths))
        for unit in job.units(len(paths)):
            label = f"ch. {unit + 1}"
            yield Begun(unit, label)
            if paths[unit] in archive.namelist():
                text = html_to_text(archive.read(paths[unit]))
                title = next((line for line in text.splitlines() if line.startswith("#")), "")
                if title:
                    yield Chapter(title.lstrip("# ")[:200], 0, unit)
                yield Section(label, text)
            else:
                yield Section(label, "")
                yield Note(f"{label}: the file that the book names is not in it.")
            yield Done(unit)


def _spine(archive: ZipFile) -> list[str]:
    """The files of the book in reading order."""
    container = parse_xml(archive.read(_CONTAINER))
    package_path = next(
        node.get("full-path") for node in container.iter() if _name(node) == "rootfile"
    )
    root = parse_xml(archive.read(package_path))
    folder = posixpath.dirname(package_path)
    items = {node.get("id"): node.get("href") for node in root.iter() if _name(node) == "item"}
    references = [node.get("idref") for node in root.iter() if _name(node) == "itemref"]
    hrefs = [items[reference] for reference in references if items.get(reference)]
    return [posixpath.normpath(posixpath.join(folder, unquote(href))) for href in hrefs]


def _name(node: Any) -> str:
    """Its local name; comments have none."""
    return node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""
