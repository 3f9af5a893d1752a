"""`mom library`: lists, renames, checks and deletes prepared documents."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from app.cli.common_options import home_option, json_option
from app.cli.table import table
from mom_core.sizes import parse_quota, size_text

if TYPE_CHECKING:
    from app.library.entry import Entry
    from app.library.library import Library

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _options(command: _Command) -> _Command:
    return home_option(json_option(command))


@click.group("library", invoke_without_command=True)
@_options
@click.pass_context
def library(context: click.Context, home: Path | None, as_json: bool) -> None:
    """Prepared documents: read once, stored on disk, open at once."""
    context.obj = (home, as_json)
    if context.invoked_subcommand is None:
        _list(home, as_json)


@library.command("list")
@_options
@click.pass_obj
def list_entries(above: tuple[Path | None, bool], home: Path | None, as_json: bool) -> None:
    """List prepared documents, the last used first."""
    _list(home or above[0], as_json or above[1])


@library.command()
@click.argument("name")
@_options
@click.pass_obj
def forget(above: tuple[Path | None, bool], name: str, home: Path | None, as_json: bool) -> None:
    """Delete a prepared document."""
    entry = _library(home or above[0]).forget(name)
    words = f'Deleted "{entry.name}" and freed {size_text(entry.size_bytes)}.'
    _print({"forgotten": entry.name, "freed_bytes": entry.size_bytes}, words, as_json or above[1])


@library.command()
@click.argument("name")
@click.argument("new_name")
@_options
@click.pass_obj
def rename(
    above: tuple[Path | None, bool], name: str, new_name: str, home: Path | None, as_json: bool
) -> None:
    """Rename a prepared document."""
    entry = _library(home or above[0]).rename(name, new_name)
    _print({"name": entry.name}, f'Renamed to "{entry.name}".', as_json or above[1])


@library.command()
@click.argument("name", required=False)
@_options
@click.pass_obj
def verify(
    above: tuple[Path | None, bool], name: str | None, home: Path | None, as_json: bool
) -> None:
    """Check every file against its checksum. Exits with 1 if one is damaged."""
    entries = _library(home or above[0]).verify(name)
    faults = [entry for entry in entries if entry.problem]
    lines = [f"{entry.name}: {entry.problem}" for entry in faults]
    lines.append(f"{len(entries) - len(faults)} of {len(entries)} are intact.")
    content = {"entries": [_as_json(entry) for entry in entries], "damaged": len(faults)}
    _print(content, "\n".join(lines), as_json or above[1])
    if faults:
        sys.exit(1)


@library.command()
@click.argument("size", required=False)
@_options
@click.pass_obj
def quota(
    above: tuple[Path | None, bool], size: str | None, home: Path | None, as_json: bool
) -> None:
    """Show the library's quota, or set it: 40GiB, or 0 to store nothing."""
    found = _library(home or above[0])
    if size is not None:
        found.set_quota(parse_quota(size))
    now = found.quota()
    content = {"limit_bytes": now.limit_bytes, "used_bytes": now.used_bytes}
    _print(content, _used(found, now.used_bytes, now.limit_bytes), as_json or above[1])


def _library(home: Path | None) -> Library:
    from app.library.library import Library

    return Library(home)


def _list(home: Path | None, as_json: bool) -> None:
    found = _library(home)
    entries, quota_now = found.list(), found.quota()
    content = {
        "folder": str(found.folder),
        "limit_bytes": quota_now.limit_bytes,
        "used_bytes": quota_now.used_bytes,
        "entries": [_as_json(entry) for entry in entries],
    }
    _print(content, _table(entries, found, quota_now.limit_bytes), as_json)


def _table(entries: Sequence[Entry], found: Library, limit_bytes: int) -> str:
    if not entries:
        return f"No prepared documents yet in {found.folder}."
    rows = [("name", "model", "tokens", "size", "last used", "")]
    for entry in entries:
        state = "damaged" if entry.problem else ""
        if entry.manifest is not None and not entry.problem and not entry.is_whole:
            state = f"read to {entry.fraction:.0%}"
        used_at = entry.used_at[:16].replace("T", " ")
        size = size_text(entry.size_bytes)
        rows.append((entry.name, entry.model, f"{entry.tokens:,}", size, used_at, state))
    used_bytes = sum(entry.size_bytes for entry in entries)
    return f"{table(rows)}\n{_used(found, used_bytes, limit_bytes)}"


def _used(found: Library, used_bytes: int, limit_bytes: int) -> str:
    return f"{size_text(used_bytes)} of {size_text(limit_bytes)} used in {found.folder}."


def _as_json(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "name": entry.name,
        "model": entry.model,
        "tokens": entry.tokens,
        "size_bytes": entry.size_bytes,
        "created_at": entry.created_at,
        "used_at": entry.used_at,
        "documents": [{"name": d.name, "digest": d.digest} for d in entry.documents],
        "is_whole": entry.is_whole,
        "fraction": entry.fraction,
        "problem": entry.problem,
    }


def _print(content: dict[str, Any], words: str, as_json: bool) -> None:
    click.echo(json.dumps(content, ensure_ascii=False) if as_json else words)
