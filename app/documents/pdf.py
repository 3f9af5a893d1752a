"""Pages of a PDF: text by PDFium, page labels by pypdf, which also reads what PDFium cannot."""

from __future__ import annotations

import logging
import re
import threading
from pathlib import Path

from app.documents.document import Document, Section
from app.documents.text import clean
from mom_core.errors import DocumentError

# PDFium may not be entered by two threads at once.
_PDFIUM = threading.Lock()
_RANGE = re.compile(r"(\d+)(?:\s*-\s*(\d+))?")
_HYPHEN_AT_LINE_END = re.compile(r"(?:\u00ad|\ufffe|\x02)\n?")

# pypdf reports every small fault of a file on the log; the document shows what matters.
logging.getLogger("pypdf").setLevel(logging.CRITICAL)


def read_pdf(path: Path, name: str, pages: str | None = None) -> Document:
    """Reads a PDF, one section per page.

    Args:
        path: the file.
        name: shown to people.
        pages: physical pages from 1, such as "1-20,25"; None reads all.

    Raises:
        DocumentError: locked by a password, damaged, without any text, or pages it has not.
    """
    try:
        numbers, texts, notes = _by_pdfium(path, name, pages)
    except _Damaged as fault:
        numbers, texts, notes = _by_pypdf(path, name, pages, fault)
    labels = _labels(path, max(numbers) + 1)
    sections = tuple(
        Section(f"p. {labels[number]}", text) for number, text in zip(numbers, texts, strict=True)
    )
    if not any(section.text for section in sections):
        raise DocumentError(
            f"{name} has {_pages(len(sections))} but no text: they are pictures, probably scans. "
            "Make it searchable with a text-recognition program first, then drop it again."
        )
    return Document(name, "pdf", sections, notes=notes)


class _Damaged(Exception):
    """PDFium cannot read the file."""


def _by_pdfium(
    path: Path, name: str, pages: str | None
) -> tuple[list[int], list[str], tuple[str, ...]]:
    import pypdfium2
    import pypdfium2.raw

    with _PDFIUM:
        try:
            pdf = pypdfium2.PdfDocument(path)
        except pypdfium2.PdfiumError as fault:
            if getattr(fault, "err_code", None) == pypdfium2.raw.FPDF_ERR_PASSWORD:
                raise _locked(name) from fault
            raise _Damaged(str(fault)) from fault
        try:
            if len(pdf) == 0:
                raise _Damaged("no pages")
            numbers = _page_numbers(pages, len(pdf), name)
        except BaseException:
            pdf.close()
            raise
    texts = []
    try:
        for number in numbers:
            # Given back between pages, so that a long manual does not hold up a short one.
            with _PDFIUM:
                try:
                    page = pdf[number]
                    text_page = page.get_textpage()
                    text = text_page.get_text_bounded()
                    text_page.close()
                    page.close()
                except pypdfium2.PdfiumError as fault:
                    raise _Damaged(f"page {number + 1}: {fault}") from fault
            texts.append(_tidy(text))
    finally:
        with _PDFIUM:
            pdf.close()
    return numbers, texts, ()


def _by_pypdf(
    path: Path, name: str, pages: str | None, fault: Exception
) -> tuple[list[int], list[str], tuple[str, ...]]:
    import pypdf

    try:
        reader = pypdf.PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise _locked(name)
        total = len(reader.pages)
        if total == 0:
            raise ValueError("no pages")
        numbers = _page_numbers(pages, total, name)
        texts = [_tidy(reader.pages[number].extract_text()) for number in numbers]
    except DocumentError:
        raise
    except Exception as second:
        # A broken file may raise anything in its parser.
        raise DocumentError(
            f"{name} cannot be read as a PDF: it is damaged or not a PDF ({fault}). "
            "Open it in a PDF viewer and save it anew, or get a fresh copy."
        ) from second
    return numbers, texts, ("Slightly damaged: read with the slower of the two PDF readers.",)


def _labels(path: Path, pages: int) -> list[str]:
    """The printed page numbers ("iv", "12"), or the physical ones where the file has none."""
    import pypdf

    physical = [str(number) for number in range(1, pages + 1)]
    try:
        reader = pypdf.PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            return physical
        if "/PageLabels" not in reader.root_object:
            return physical
        labels = [re.sub(r"\s+", " ", label).strip() for label in reader.page_labels[:pages]]
    except Exception:  # noqa: BLE001 - labels are a courtesy; a fault in them costs no text
        return physical
    # Labels that name two pages alike ("1" of the preface and of the text) cannot be cited.
    if len(labels) != pages or not all(labels) or len(set(labels)) != len(labels):
        return physical
    return labels


def _page_numbers(pages: str | None, total: int, name: str) -> list[int]:
    """Physical page indices from 0 for "1-20,25"."""
    if pages is None:
        return list(range(total))
    chosen: dict[int, None] = {}
    for part in pages.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise DocumentError(
                f'pages "{pages}" cannot be read; write page numbers and ranges such as "1-20,25".'
            )
        first = int(match[1])
        last = int(match[2] or first)
        if not 1 <= first <= last <= total:
            raise DocumentError(
                f'pages "{part.strip()}" were asked for, but {name} has {_pages(total)}; '
                f"give numbers from 1 to {total:,}."
            )
        chosen.update(dict.fromkeys(range(first - 1, last)))
    return sorted(chosen)


def _tidy(text: str) -> str:
    return clean(_HYPHEN_AT_LINE_END.sub("", text.replace("\r\n", "\n"))).strip()


def _locked(name: str) -> DocumentError:
    return DocumentError(
        f"{name} is locked with a password. Open it in a PDF viewer, save a copy without the "
        "password, and drop that."
    )


def _pages(number: int) -> str:
    return "1 page" if number == 1 else f"{number:,} pages"
