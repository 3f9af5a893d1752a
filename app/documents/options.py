"""What a person may choose about reading one document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Extractor = Literal["pdfium", "pypdf", "ocr"]
EXTRACTORS: tuple[Extractor, ...] = get_args(Extractor)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOptions:
    """Choices, all optional.

    Args:
        pages: which pages of a PDF, from 1, such as "1-20,25"; None reads all.
        password: opens an encrypted PDF.
        extractor: gives a PDF's text: PDFium (with pypdf where it fails), pypdf, or Tesseract for
            pages without text.
        page_extractors: for single pages of a PDF another one: page from 0 and extractor, such as
            "11:pypdf".
        drops_running_lines: leave out the headers and footers that every page repeats.
        joins_hyphens: put words together that were divided at the end of a line.
        include: patterns as in `.gitignore`; only files that match are read. Empty: all.
        exclude: patterns of files that are not read.
        put_back: paths of left-out files and folders ("vendor/") that are to be read all the same;
            a probable secret only by its own path.
    """

    pages: str | None = None
    password: str = ""
    extractor: Extractor = "pdfium"
    page_extractors: tuple[str, ...] = ()
    drops_running_lines: bool = True
    joins_hyphens: bool = True
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    put_back: tuple[str, ...] = ()

    def extractor_of(self, page: int) -> Extractor:
        """The extractor of a page of a PDF, counted from 0."""
        for entry in reversed(self.page_extractors):
            number, _, name = entry.partition(":")
            if number == str(page):
                return next((one for one in EXTRACTORS if one == name), self.extractor)
        return self.extractor


DEFAULT_OPTIONS = ReadOptions()
