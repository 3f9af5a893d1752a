"""`mom read`: files and folders as a model would see them, without loading a model.

It never imports torch: the tokenizer is loaded alone.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import click

from app import wording
from app.cli.common_options import json_option
from app.cli.document_options import document_options
from app.documents import (
    DiskCache,
    Document,
    DocumentLocked,
    Limits,
    ReadOptions,
    ReadProgress,
    Section,
    receipt,
)
from app.documents import read as read_document
from app.documents.names import told_apart
from app.documents.secrets import is_secret
from app.prompt.prompt import TokenizedDocument, tokenize
from app.prompt.tokenizer_files import load_encoder
from mom_core.errors import DocumentError, MomError
from mom_core.model.builtin import BUILTIN_NAME

_NAMED = 20


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@document_options
@click.option(
    "--model", default=BUILTIN_NAME, show_default=True, help="Model whose tokens are counted."
)
@json_option
def read(
    paths: tuple[Path, ...],
    options: ReadOptions,
    limits: Limits,
    keeps_cache: bool,
    model: str,
    as_json: bool,
) -> None:
    """Print files or folders as a model would see them, and count their tokens.

    The text goes to stdout, page by page as it is read; the counts go to stderr. Exits with 2
    if nothing could be read.
    """
    cache = DiskCache() if keeps_cache else None
    documents: list[Document] = []
    errors: list[dict[str, str]] = []
    for path, outcome in _read_each(paths, options, limits, cache, prints=not as_json):
        if isinstance(outcome, Document):
            documents.append(outcome)
        else:
            errors.append({"path": str(path), "error": str(outcome)})
            click.echo(f"mom: {outcome}", err=True)
    encoder = None
    if documents:
        try:
            encoder = load_encoder(model, cache)
        except MomError as fault:
            click.echo(f"mom: No token count: {fault}", err=True)
    counted = [
        (document, None if encoder is None else tokenize(document, encoder))
        for document in documents
    ]
    for document, tokenized in counted:
        tokens = None if tokenized is None else tokenized.tokens
        click.echo(f"{document.name}: {receipt(document, tokens)}", err=True)
        for line in left_out_lines(document if tokenized is None else tokenized.document):
            click.echo(line, err=True)
    if as_json:
        click.echo(json.dumps(_report(counted, errors), ensure_ascii=False))
    if not documents:
        sys.exit(2)


def left_out_lines(document: Document) -> list[str]:
    """What was left out and why, probable secrets first; a long list is cut."""
    entries = sorted(document.left_out, key=lambda one: not is_secret(one))
    more = len(entries) - _NAMED
    lines = [f"  Left out: {wording.left_out(one)}" for one in entries[:_NAMED]]
    return (
        [*lines, f"  … and {more:,} more; mom read --json lists them all."] if more > 0 else lines
    )


def read_all(
    paths: tuple[Path, ...], options: ReadOptions, limits: Limits, cache: DiskCache | None
) -> list[Document]:
    """All documents in the order given; several are read at once.

    Raises:
        DocumentError: one cannot be read.
    """
    documents = []
    for _, outcome in _read_each(paths, options, limits, cache, prints=False):
        if isinstance(outcome, DocumentError):
            raise outcome
        documents.append(outcome)
    return documents


def _read_each(
    paths: tuple[Path, ...],
    options: ReadOptions,
    limits: Limits,
    cache: DiskCache | None,
    *,
    prints: bool,
) -> Iterator[tuple[Path, Document | DocumentError]]:
    """Each document, or why it cannot be read, in the order given; several are read at once."""

    is_over = threading.Event()

    def read_one(path: Path, name: str, options: ReadOptions) -> Document | DocumentError:
        shown = _Printer() if prints and path is paths[0] else None

        def show(progress: ReadProgress) -> None:
            if is_over.is_set():
                raise DocumentError("The reading was stopped.")
            if shown is not None:
                shown.add(progress.sections)

        try:
            return read_document(path, name, options, limits, cache=cache, on_progress=show)
        except DocumentError as fault:
            return fault
        finally:
            if shown is not None:
                shown.flush()

    names = told_apart(path.name or path.resolve().name for path in paths)
    with ThreadPoolExecutor() as pool, _set_at_the_end(is_over):
        outcomes = pool.map(read_one, paths, names, repeat(options))
        for path, name, outcome in zip(paths, names, outcomes, strict=True):
            if isinstance(outcome, DocumentLocked) and sys.stdin.isatty():
                password = click.prompt(f"Password of {name}", hide_input=True, err=True)
                outcome = read_one(path, name, replace(options, password=password))
            if prints and path is not paths[0] and isinstance(outcome, Document):
                for section in outcome.sections:
                    _print(section)
            yield path, outcome


@contextlib.contextmanager
def _set_at_the_end(flag: threading.Event) -> Iterator[None]:
    """Ctrl-C reaches only the main thread; the other threads check a flag."""
    try:
        yield
    finally:
        flag.set()


class _Printer:
    """Prints sections in order, although several processes read them."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[Section]] = {}
        self._next = 0

    def add(self, sections: tuple[tuple[int, Section], ...]) -> None:
        for unit, section in sections:
            self._waiting.setdefault(unit, []).append(section)
        while self._next in self._waiting:
            for section in self._waiting.pop(self._next):
                _print(section)
            self._next += 1
        sys.stdout.flush()

    def flush(self) -> None:
        """Prints what still waits for a unit that had no sections."""
        for unit in sorted(self._waiting):
            for section in self._waiting.pop(unit):
                _print(section)
        sys.stdout.flush()


def _print(section: Section) -> None:
    sys.stdout.write(f"[{section.label}]\n{section.text}\n\n")


def _report(
    counted: list[tuple[Document, TokenizedDocument | None]], errors: list[dict[str, str]]
) -> dict[str, Any]:
    documents = [_document_report(document, tokenized) for document, tokenized in counted]
    totals = [document["tokens"] for document in documents]
    return {
        "documents": documents,
        "tokens": None if None in totals else sum(totals),
        "errors": errors,
    }


def _document_report(document: Document, tokenized: TokenizedDocument | None) -> dict[str, Any]:
    known = document if tokenized is None else tokenized.document
    counts = [None] * len(document.sections) if tokenized is None else tokenized.section_ids
    return {
        "name": document.name,
        "kind": document.kind,
        "sections": [
            {
                "label": section.label,
                "tokens": None if ids is None else len(ids),
                "characters": len(section.text),
                "health": asdict(section.health),
            }
            for section, ids in zip(document.sections, counts, strict=True)
        ],
        "tokens": None if tokenized is None else tokenized.tokens,
        "left_out": [
            {"path": one.path, "reason": one.reason, "tokens": one.tokens} for one in known.left_out
        ],
        "notes": list(document.notes),
    }
