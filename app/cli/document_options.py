"""The options about documents that `mom read` and `mom ask` share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from app.cli.common_options import limit_option, no_cache_option
from app.documents import EXTRACTORS, ReadOptions, parse_limits

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--pages", help='Pages of the PDFs to read, from 1: "1-20,25". Default: all.'),
    click.option(
        "--password", default="", help="Password of an encrypted PDF. A terminal asks for it."
    ),
    click.option(
        "--extractor",
        type=click.Choice(EXTRACTORS),
        default="pdfium",
        show_default=True,
        help="How to get text from PDFs; ocr uses Tesseract for pages without text.",
    ),
    click.option(
        "--include",
        multiple=True,
        metavar="PATTERN",
        help="In a folder or archive, read only these files: '*.py'.",
    ),
    click.option(
        "--exclude",
        multiple=True,
        metavar="PATTERN",
        help="Do not read these: 'tests/*'. Patterns as in .gitignore.",
    ),
    click.option(
        "--put-back",
        multiple=True,
        metavar="PATH",
        help='Read a file or folder that was left out: "vendor/".',
    ),
    click.option("--keep-headers", is_flag=True, help="Keep running headers and footers of PDFs."),
    click.option("--keep-hyphens", is_flag=True, help="Keep hyphens at line ends."),
    limit_option,
    no_cache_option,
)


def document_options(command: Command) -> Command:
    """Adds the options; the command gets them as `options`, `limits` and `keeps_cache`."""

    @functools.wraps(command)
    def with_options(
        *,
        pages: str | None,
        password: str,
        extractor: Any,
        include: tuple[str, ...],
        exclude: tuple[str, ...],
        put_back: tuple[str, ...],
        keep_headers: bool,
        keep_hyphens: bool,
        limit: tuple[str, ...],
        no_cache: bool,
        **others: Any,
    ) -> Any:
        options = ReadOptions(
            pages=pages,
            password=password,
            extractor=extractor,
            include=include,
            exclude=exclude,
            put_back=put_back,
            drops_running_lines=not keep_headers,
            joins_hyphens=not keep_hyphens,
        )
        return command(
            options=options, limits=parse_limits(limit), keeps_cache=not no_cache, **others
        )

    wrapped: Any = with_options
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]
