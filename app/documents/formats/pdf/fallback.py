"""Pages by pypdf: slower than PDFium, and made otherwise, so it reads some that PDFium cannot."""

from __future__ import annotations

import logging
from pathlib import Path

from app.documents.document import Health
from app.documents.formats.pdf.glyphs import undecodable
from app.documents.formats.pdf.lines import Line, PageLines
from app.documents.formats.pdf.pdfium import Damaged, PasswordNeeded


class PypdfFile:
    """An open PDF.

    Raises:
        PasswordNeeded: encrypted, and `password` does not open it.
        Damaged: not a PDF, or broken beyond repair.
    """

    def __init__(self, path: Path, password: str) -> None:
        # It takes longer to import than PDFium takes to read a hundred pages.
        import pypdf

        # It reports every small fault of a file on the log; the document shows what matters.
        logging.getLogger("pypdf").setLevel(logging.CRITICAL)
        try:
            self._reader = pypdf.PdfReader(path)
            if self._reader.is_encrypted and not self._reader.decrypt(password):
                raise PasswordNeeded
            self.pages = len(self._reader.pages)
        except PasswordNeeded:
            raise
        except Exception as fault:
            # A broken file may raise anything in its parser.
            raise Damaged(str(fault)) from fault

    def read_page(self, index: int) -> PageLines:
        """Raises `Damaged` where pypdf fails too."""
        try:
            page = self._reader.pages[index]
            text = page.extract_text()
            height = float(page.mediabox.height)
        except Exception as fault:
            raise Damaged(f"page {index + 1}: {fault}") from fault
        health = Health(extractor="pypdf", undecodable_characters=undecodable(text))
        return PageLines(index, height, tuple(Line(line) for line in text.splitlines()), health)
