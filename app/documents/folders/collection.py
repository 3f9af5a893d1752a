"""Many files as one document, wherever they lie: a folder, an upload, an archive."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from app.documents.budget import UnpacksTooFar
from app.documents.document import LeftOut, Section
from app.documents.encoding import decode_text
from app.documents.folders.archive import BROKEN, inflated_name
from app.documents.folders.folder import FOLDER_NOT_SENT
from app.documents.folders.selection import (
    Entry,
    Skipped,
    is_named,
    is_put_back,
    minified,
    select,
    too_large,
)
from app.documents.language import language_of
from app.documents.options import ReadOptions
from app.documents.parts import Begun, Done, Job, More, Note, Opened, Part, Refused
from app.documents.secrets import secret_by_name, secret_in_text
from app.documents.wording import count, size_words
from mom_core.errors import DocumentError

# Text of left-out files is read too, for counting: what would it cost to put them back?
_COUNTED_BYTES_MAX = 1024 * 1024
_COUNTED_TOTAL_BYTES_MAX = 32 * 1024 * 1024
_HEAD_BYTES = 8
# First bytes of files that have a reader of their own.
_MAGICS = (
    b"%PDF-",
    b"PK\x03\x04",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"{\\rtf",
)
_SUFFIXES = (".ipynb", ".eml")


def read_entries(
    job: Job, entries: Iterable[Entry], read_file: Callable[[Job, str], Iterator[Part]]
) -> Iterator[Part]:
    """Yields every text file among the entries, and what is left out.

    Args:
        job: what is asked.
        entries: all of them.
        read_file: reads a file of this machine by the reader named.
    """
    try:
        selection = select(entries, job.options, job.limits)
    except DocumentError as fault:
        yield Refused(str(fault))
        return
    yield Opened("code", len(selection.chosen), can_be_split=True)
    if not job.start:
        yield from _left_out(selection.skipped)
        yield from map(Note, selection.notes)
    for unit in job.units(len(selection.chosen)):
        entry = selection.chosen[unit]
        yield Begun(unit, entry.path)
        yield from _read(job, entry, read_file)
        yield Done(unit)


def _left_out(skipped: Iterable[Skipped]) -> Iterator[LeftOut]:
    """Each with what it would cost to put it back, as far as looking at it is cheap."""
    budget = _COUNTED_TOTAL_BYTES_MAX
    for one in skipped:
        text, reason = None, one.reason
        size = sum(entry.size_bytes for entry in one.entries)
        is_seen = not one.entries[-1].path.endswith(f"/{FOLDER_NOT_SENT}")
        if one.can_be_put_back and one.where.endswith("/"):
            reason = f"{reason} ({_extent(one.entries, size, is_seen=is_seen)})"
        if one.can_be_put_back and is_seen and size <= min(_COUNTED_BYTES_MAX, budget):
            budget -= size
            try:
                text = _text_left_out(one)
            except OSError as fault:
                reason = f"{reason}; cannot be read: {fault.strerror or fault}"
        elif one.can_be_put_back:
            reason = f"{reason}; tokens not counted"
        yield LeftOut(one.where, reason, one.can_be_put_back, text)


def _extent(entries: Sequence[Entry], size_bytes: int, *, is_seen: bool) -> str:
    if not is_seen:
        return f"more than {count(len(entries) - 1, 'file')}"
    return f"{count(len(entries), 'file')}, {size_words(size_bytes)}"


def _text_left_out(one: Skipped) -> str | None:
    """Of a file; of a folder that of all it would bring back, as it would stand in a prompt."""
    if not one.where.endswith("/"):
        return _text_of_entry(one.entries[0])
    texts = (
        (entry.path, _text_of_entry(entry))
        for entry in one.entries
        if secret_by_name(entry.path) is None
    )
    return "".join(
        f"[{path}]\n{text}\n\n"
        for path, text in texts
        if text is not None and secret_in_text(text) is None
    )


def _text_of_entry(entry: Entry) -> str | None:
    with entry.open() as file:
        return decode_text(file.read(entry.size_bytes + 1))


def _read(
    job: Job, entry: Entry, read_file: Callable[[Job, str], Iterator[Part]]
) -> Iterator[Part]:
    limit = job.limits.member_mb * 1024**2
    try:
        with entry.open() as file:
            head = file.read(_HEAD_BYTES)
            if head.startswith(_MAGICS) or entry.path.lower().endswith(_SUFFIXES):
                yield from _read_inside(job, entry, head, read_file)
                return
            data = head + file.read(limit + 1)
    except UnpacksTooFar:
        # Of the archive as a whole.
        raise
    except OSError as fault:
        yield LeftOut(entry.path, f"cannot be read: {fault.strerror or fault}")
        return
    except DocumentError as fault:
        yield LeftOut(entry.path, _why(entry.path, str(fault)))
        return
    except (*BROKEN, RecursionError) as fault:
        # One broken file hides no other.
        yield LeftOut(entry.path, f"cannot be read: {fault}")
        return
    if len(data) > limit:
        yield LeftOut(entry.path, too_large(job.limits))
        return
    text = decode_text(data)
    if text is None:
        yield LeftOut(entry.path, "not text")
    elif not text.strip():
        yield LeftOut(entry.path, "empty")
    elif (reason := _unwanted(job, entry.path, text)) is not None:
        yield LeftOut(entry.path, reason, True, text if len(text) < _COUNTED_BYTES_MAX else None)
    else:
        yield Section(entry.path, text, entry.path, language_of(entry.path))


def _why(path: str, sentence: str) -> str:
    """A refusal without the name it begins with, which stands beside it."""
    return sentence.removeprefix(f"{path} ")


def _unwanted(job: Job, path: str, text: str) -> str | None:
    if (secret := secret_in_text(text)) is not None and not is_named(path, job.options):
        return secret
    if minified(text) and not is_put_back(path, job.options):
        return "minified or generated"
    return None


def _text_of(parts: Iterable[Part]) -> str:
    """All text of one file."""
    pieces = []
    for part in parts:
        if isinstance(part, Section):
            pieces.append(f"\n{part.text}")
        elif isinstance(part, More):
            pieces.append(part.text)
    return "".join(pieces)


def _read_inside(
    job: Job, entry: Entry, head: bytes, read_file: Callable[[Job, str], Iterator[Part]]
) -> Iterator[Part]:
    """A PDF, office file or notebook among the files: its sections take the file's path."""
    from app.documents.sniff import sniff

    with tempfile.TemporaryDirectory(prefix="mom-read-") as folder:
        place = entry.place
        if place is None:
            place = Path(folder) / "member"
            with entry.open() as file, place.open("wb") as copy:
                shutil.copyfileobj(file, copy, 1024 * 1024)
        try:
            kind = sniff(place, entry.path)
        except DocumentError as fault:
            yield LeftOut(entry.path, _why(entry.path, str(fault)))
            return
        inner = replace(
            job,
            path=place,
            name=entry.path,
            options=_options_inside(job.options, entry.path),
            start=0,
            end=None,
            skip=frozenset(),
            is_upload=False,
        )
        drawn = read_file(inner, kind)
        opened = next(drawn, None)
        if opened is None:
            return
        if isinstance(opened, Opened) and opened.kind == "code":
            yield from _of_archive(entry.path, drawn)
            return
        has_text = False
        parts = [opened, *drawn]
        secret = secret_in_text(_text_of(parts))
        if secret is not None and not is_named(entry.path, job.options):
            yield LeftOut(entry.path, secret, True)
            return
        for part in parts:
            match part:
                case Section():
                    is_whole = part.label in (entry.path, inflated_name(entry.path))
                    label = entry.path if is_whole else f"{entry.path} {part.label}"
                    has_text = has_text or bool(part.text.strip())
                    yield replace(part, label=label, path=entry.path)
                case More():
                    has_text = has_text or bool(part.text.strip())
                    yield part
                case Note():
                    yield Note(f"{entry.path}: {part.sentence}")
                case Refused():
                    yield LeftOut(entry.path, _why(entry.path, part.sentence))
                    return
        if not has_text:
            yield Note(f"{entry.path} has no text.")


def _options_inside(options: ReadOptions, path: str) -> ReadOptions:
    """For an archive at `path`: what is to be put back is named from the outside."""
    inside = f"{path}/"
    put_back = tuple(
        wanted.removeprefix(inside) for wanted in options.put_back if wanted.startswith(inside)
    )
    # That it was chosen was a word about all of it.
    return replace(options, pages=None, include=(), put_back=put_back)


def _of_archive(path: str, parts: Iterable[Part]) -> Iterator[Part]:
    """The files of an archive at `path`, as if it were a folder."""
    has_text = False
    for part in parts:
        match part:
            case Section():
                has_text = has_text or bool(part.text.strip())
                inside = f"{path}/"
                yield replace(part, label=inside + part.label, path=inside + part.path)
            case LeftOut():
                yield replace(part, path=f"{path}/{part.path}")
            case More():
                has_text = has_text or bool(part.text.strip())
                yield part
            case Note():
                yield Note(f"{path}: {part.sentence}")
            case Refused():
                yield LeftOut(path, _why(path, part.sentence))
                return
    if not has_text:
        yield Note(f"{path} has no text.")
