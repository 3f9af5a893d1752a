"""The reader of PDFs: one section a page, in blocks of pages so that neighbours can be compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from app.documents.document import Chapter, Health, Section
from app.documents.encoding import clean
from app.documents.formats.pdf import INSTALL_RECOGNITION, recognition
from app.documents.formats.pdf.accents import compose_accents
from app.documents.formats.pdf.fallback import PypdfFile
from app.documents.formats.pdf.hyphens import text_of, vocabulary
from app.documents.formats.pdf.lines import PageLines
from app.documents.formats.pdf.pdfium import Damaged, PasswordNeeded, PdfiumFile
from app.documents.formats.pdf.running_lines import running_lines
from app.documents.pages import page_numbers
from app.documents.parts import Begun, Done, Job, Opened, Part, Refused
from app.documents.wording import count

_BLOCK_PAGES = 32
_CHAPTER_DEPTH = 6
_UNDECODABLE_SHARE = 0.2


def read_pdf(job: Job) -> Iterator[Part]:
    """Yields the pages chosen, each with its printed number as label."""
    try:
        pages = _Pages(job)
    except PasswordNeeded:
        yield Refused(_locked(job), is_locked=True)
        return
    except Damaged as fault:
        yield Refused(
            f"{job.name} cannot be read as a PDF: it is damaged or not a PDF ({fault}). "
            "Open it in a PDF viewer and save it again, or get a fresh copy."
        )
        return
    if pages.total > job.limits.pages:
        yield Refused(
            f"{job.name} has {count(pages.total, 'page')}; at most {job.limits.pages:,} are read. "
            f"Split it, or {job.limits.raising('pages')}."
        )
        return
    if job.options.extractor == "ocr" and not recognition.is_installed():
        yield Refused(
            f"{job.name} was to be read by text recognition, but Tesseract is not installed. "
            f"Install it: {INSTALL_RECOGNITION}."
        )
        return
    numbers = page_numbers(job.options.pages, pages.total)
    if isinstance(numbers, str):
        yield Refused(numbers.format(name=job.name, total=count(pages.total, "page")))
        return
    yield Opened("pdf", len(numbers), can_be_split=True)
    yield from _sections(job, pages, numbers)


def _sections(job: Job, pages: _Pages, numbers: list[int]) -> Iterator[Part]:
    labels = pages.labels(numbers)
    before: list[PageLines] = []
    todo = list(job.units(len(numbers)))
    for first in range(0, len(todo), _BLOCK_PAGES):
        units, block = todo[first : first + _BLOCK_PAGES], []
        for unit in units:
            yield Begun(unit, f"p. {labels[unit]}")
            block.append(pages.read(numbers[unit]))
        running = running_lines(before + block) if job.options.drops_running_lines else {}
        kept = [_without(page, running.get(page.index, frozenset())) for page in block]
        words = vocabulary(line for page in kept for line in page.lines)
        for unit, page in zip(units, kept, strict=True):
            if unit == len(numbers) - 1:
                # Last, as the outline of a long manual takes longer than its first pages.
                yield from pages.chapters(numbers)
            text = text_of(page.lines, words, joins=job.options.joins_hyphens)
            yield Section(
                f"p. {labels[unit]}", clean(compose_accents(text)).strip(), health=page.health
            )
            yield Done(unit)
        before = block


def _without(page: PageLines, running: frozenset[int]) -> PageLines:
    lines = tuple(line for number, line in enumerate(page.lines) if number not in running)
    # What stands alone on its page is what the page says.
    if not running or not any(line.text.strip() for line in lines):
        return page
    dropped = sum(len(line.text) for n, line in enumerate(page.lines) if n in running)
    return replace(page, lines=lines, health=replace(page.health, running_characters=dropped))


class _Pages:
    """A PDF read by whichever program can.

    Raises:
        PasswordNeeded: encrypted.
        Damaged: neither program can open it.
    """

    def __init__(self, job: Job) -> None:
        self._path: Path = job.path
        self._options = job.options
        self._limits = job.limits
        self._pypdf: PypdfFile | None = None
        self._pdfium: PdfiumFile | None = None
        try:
            self._pdfium = PdfiumFile(job.path, job.options.password)
        except Damaged:
            self._pypdf = PypdfFile(job.path, job.options.password)
        else:
            if not self._pdfium.pages:
                self._pdfium = None
                self._pypdf = PypdfFile(job.path, job.options.password)
        self.total = (self._pdfium or self._fallback()).pages
        if not self.total:
            raise Damaged("it has no pages")

    def _fallback(self) -> PypdfFile:
        if self._pypdf is None:
            self._pypdf = PypdfFile(self._path, self._options.password)
        return self._pypdf

    def read(self, index: int) -> PageLines:
        """A page; one that nobody can read is empty and says why."""
        extractor = self._options.extractor_of(index)
        if extractor == "pypdf" or self._pdfium is None:
            return self._by_pypdf(index)
        try:
            page = self._pdfium.read_page(index)
        except Damaged:
            return self._by_pypdf(index)
        characters = sum(len(line.text) for line in page.lines)
        if page.health.undecodable_characters > _UNDECODABLE_SHARE * max(1, characters):
            other = self._by_pypdf(index)
            if other.lines and other.health.undecodable_characters < (
                page.health.undecodable_characters
            ):
                return other
        # Where a person asks for one page to be recognised, what text it has does not help.
        is_asked = extractor != self._options.extractor
        if extractor == "ocr" and (is_asked or not any(line.text.strip() for line in page.lines)):
            if not recognition.is_installed():
                fault = f"Tesseract is not installed. Install it: {INSTALL_RECOGNITION}"
                return replace(page, health=replace(page.health, fault=fault))
            try:
                return recognition.recognise(self._pdfium, page, self._limits.page_seconds)
            except Damaged as fault:
                return replace(page, health=replace(page.health, fault=str(fault)))
        return page

    def _by_pypdf(self, index: int) -> PageLines:
        try:
            return self._fallback().read_page(index)
        except (Damaged, PasswordNeeded) as fault:
            return PageLines(index, 0.0, (), Health(fault=f"cannot be read ({fault})"))

    def labels(self, numbers: list[int]) -> list[str]:
        """The printed page numbers ("iv", "12"), or the physical ones where the file has none."""
        physical = [str(number + 1) for number in numbers]
        if self._pdfium is None:
            return physical
        labels = self._pdfium.labels(list(range(self.total)))
        # Labels that name two pages alike ("1" of the preface and of the text) cannot be cited.
        if not all(labels) or len(set(labels)) != len(labels):
            return physical
        return [labels[number] for number in numbers]

    def chapters(self, numbers: list[int]) -> Iterator[Chapter]:
        """The outline, as far as it lies on the pages chosen."""
        if self._pdfium is None:
            return
        units = {number: unit for unit, number in enumerate(numbers)}
        for level, title, index in self._pdfium.chapters(_CHAPTER_DEPTH):
            if index in units:
                yield Chapter(title, level, units[index])


def _locked(job: Job) -> str:
    if job.options.password:
        return f"{job.name} is locked, and the password given does not open it. Try another one."
    return (
        f"{job.name} is locked with a password. Give it with --password or in the list of "
        "documents, or save a copy without it."
    )
