"""HTML pages: headings, lists and tables as Markdown, without script, style and pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator

from app.documents.document import Section
from app.documents.encoding import clean, find_encoding
from app.documents.parts import Begun, Done, Job, Opened, Part
from mom_core.errors import DocumentError

_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{2,40})""", re.IGNORECASE)
_DECLARED_BYTES = 4096
_SNIFFED_BYTES = 256 * 1024
_SUPERSCRIPT = re.compile(r"<sup(?:\s[^<>]{0,200})?>(?!\s{0,9}</)", re.IGNORECASE)
_ASIDE = "\ufdd0"
# Within tables it keeps the columns apart.
_ESCAPE = re.compile(r"\\(?!\|)")
_BLANK_LINES = re.compile(r"\n{3,}")


def read_html(job: Job) -> Iterator[Part]:
    """Yields one section."""
    yield Opened("html", 1)
    for _ in job.units(1):
        yield Begun(0, job.name)
        yield Section(job.name, html_to_text(job.path.read_bytes()))
        yield Done(0)


def html_to_text(page: bytes | str) -> str:
    """The text of a page as Markdown; addresses of links are left out.

    Raises:
        DocumentError: it is no page of text.
    """
    from html_to_markdown import ConversionError, ConversionOptions, convert

    options = ConversionOptions(
        extract_metadata=False, skip_images=True, autolinks=False, strip_tags=["a"], bullets="-"
    )
    text = clean(page if isinstance(page, str) else _decode(page))
    # The converter doubles some backslashes and puts others before what Markdown might mistake;
    # ours are set aside, so that all that are left are its own.
    text = text.replace(_ASIDE, "").replace("\\", _ASIDE)
    # A power is no number with one digit more.
    text = _SUPERSCRIPT.sub(r"\g<0>^", text)
    try:
        markdown = convert(text, options).content or ""
    except ConversionError as fault:
        raise DocumentError(
            f"The page of HTML cannot be read ({fault}). Save it as text, or as a PDF."
        ) from fault
    said = _ESCAPE.sub("", clean(markdown)).replace(_ASIDE, "\\")
    return _BLANK_LINES.sub("\n\n", said).strip()


def _decode(page: bytes) -> str:
    declared = _CHARSET.search(page[:_DECLARED_BYTES])
    if declared is not None and not page.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
        try:
            return page.decode(declared[1].decode("ascii"))
        except (LookupError, UnicodeDecodeError):
            # What the page says of itself is wrong: look at its bytes.
            pass
    return page.decode(find_encoding(page[:_SNIFFED_BYTES]) or "utf-8", "replace")
