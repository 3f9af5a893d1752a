"""The library: what was read before, kept on disk, so that nothing is read twice.

One folder, no index: every entry is a folder with its manifest (`mom_core.snapshot.write`) and a small
file with its name and when it was last used. A reading that is not over is an entry, too; its
folder begins with `.partial-` until it is whole. Any number of processes may share a library: each
marks what it uses with a lock file that the system frees however the process ends. What is used
least recently goes first when the quota is reached, by a counter and not by the clock, which may
jump; what is in use stays.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import os
import shutil
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import filelock

from mom_core.errors import InvalidSetting, SnapshotUnusable
from mom_core.snapshot.write import (
    BLOCK_TOKENS,
    MANIFEST,
    Manifest,
    block_digests,
    check_files,
    flush_folder,
    read_manifest,
    read_token_ids,
    write_aside,
)

PARTIAL = ".partial-"
_ENTRY, _SETTINGS, _LOCKS = "entry.json", "settings.json", ".locks"
_DEFAULT_QUOTA_BYTES = 20 * 2**30
_DEFAULT_DISK_SHARE = 0.1
_LOCK_SECONDS = 60
_NAME_CHARACTERS = 120


def library_home(home: Path | None = None) -> Path:
    """The folder of a person's own things: as given, or `MOM_HOME`, or the system's place."""
    if home is not None:
        return home
    if named := os.environ.get("MOM_HOME"):
        return Path(named)
    import platformdirs

    return platformdirs.user_data_path("mom-chat", appauthor=False)


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """A document of an entry.

    Args:
        name: of the file.
        digest: SHA-256 of its text, hexadecimal.
    """

    name: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One prepared document, or several that were read together.

    Args:
        id: its folder's name without what marks it as unfinished.
        folder: with its files.
        name: shown to people; no two are alike.
        model: that read it.
        tokens: it has.
        size_bytes: on the disk.
        created_at: ISO 8601, UTC.
        used_at: the same, of the last use by the clock there was then.
        used_number: grows with every use in the library.
        documents: what was read.
        fraction: of its layers and the tokens of the one that ran; 1.0 when it is whole.
        problem: why it cannot be used, as a sentence; "" if it can.
        manifest: None if it cannot be read.
    """

    id: str
    folder: Path
    name: str
    model: str = ""
    tokens: int = 0
    size_bytes: int = 0
    created_at: str = ""
    used_at: str = ""
    used_number: int = 0
    documents: tuple[DocumentInfo, ...] = ()
    fraction: float = 1.0
    problem: str = ""
    manifest: Manifest | None = field(default=None, repr=False)

    @property
    def is_whole(self) -> bool:
        """Whether the reading was over."""
        return not self.folder.name.startswith(PARTIAL)


@dataclass(frozen=True, slots=True)
class Quota:
    """What the library may take, and takes.

    Args:
        limit_bytes: at most; 0 keeps nothing.
        used_bytes: of all entries.
    """

    limit_bytes: int
    used_bytes: int


@dataclass(frozen=True, slots=True)
class Match:
    """An entry that begins like a prompt.

    Args:
        entry: found.
        common_tokens: at the beginning of both.
    """

    entry: Entry
    common_tokens: int

    @property
    def worth(self) -> float:
        """Tokens whose reading it saves; those of an unfinished reading count in part."""
        return self.common_tokens * self.entry.fraction


class Library:
    """The prepared documents of one person.

    Args:
        home: the person's folder; None is `MOM_HOME` or the system's place for such.

    Raises:
        InvalidSetting: nothing can be written there.
    """

    def __init__(self, home: Path | None = None) -> None:
        self.folder = library_home(home) / "library"
        self._manifests: dict[tuple[Path, int, int], Manifest] = {}
        try:
            for folder in (self.folder, self.folder / _LOCKS):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                # Made by an older version, or by hand.
                folder.chmod(0o700)
            if not os.access(self.folder, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise InvalidSetting(
                f"Nothing can be kept in the library {self.folder}: {error.strerror or error}. "
                "Give write access there, choose another folder with MOM_HOME or --home, or keep "
                "nothing with --no-save."
            ) from error
        self._sweep()

    # What is there.

    def list(self) -> tuple[Entry, ...]:
        """All entries, the last used first; also those that cannot be used, with the reason."""
        found = [self._entry(folder) for folder in self._folders()]
        here = {entry.folder for entry in found}
        # Those of entries that are gone are not wanted again.
        for key in [key for key in tuple(self._manifests) if key[0] not in here]:
            self._manifests.pop(key, None)
        return tuple(sorted(found, key=lambda entry: (-entry.used_number, entry.name)))

    def find(self, name: str) -> Entry:
        """The entry of that name, or id.

        Raises:
            InvalidSetting: there is none; the message names those there are.
        """
        entries = self.list()
        for entry in entries:
            if name in (entry.name, entry.id):
                return entry
        names = ", ".join(f'"{entry.name}"' for entry in entries) or "nothing yet"
        raise InvalidSetting(f'There is no "{name}" in the library {self.folder}. It has: {names}.')

    def rename(self, name: str, new_name: str) -> Entry:
        """Gives an entry another name.

        Raises:
            InvalidSetting: there is no such entry, or the new name is empty, long, or taken.
        """
        new_name = " ".join(new_name.split())
        if not new_name or len(new_name) > _NAME_CHARACTERS or not new_name.isprintable():
            raise InvalidSetting(
                f"The new name has {len(new_name)} characters; it needs 1 to {_NAME_CHARACTERS} "
                "that can be shown."
            )
        with self._guarded():
            entry = self.find(name)
            taken = {other.name for other in self.list() if other.id != entry.id}
            if new_name in taken:
                raise InvalidSetting(f'The library has a "{new_name}" already; choose another.')
            self._write_entry(replace(entry, name=new_name))
            return replace(entry, name=new_name)

    def forget(self, name: str) -> Entry:
        """Deletes an entry's files. Who has it open keeps what is in memory until it ends.

        Raises:
            InvalidSetting: there is no such entry, its reading goes on right now, or it is
                something else that lies there.
        """
        with self._guarded():
            entry = self.find(name)
            if not entry.is_whole and self.is_in_use(entry.id):
                raise InvalidSetting(
                    f'"{entry.name}" is being read right now. Stop that first, then forget it.'
                )
            if not _is_ours(entry.folder):
                raise InvalidSetting(
                    f"{entry.folder} was not made by mom-chat, so it is not deleted. If you do not "
                    "need it, delete it yourself."
                )
            self._delete(entry.folder)
            return entry

    def verify(self, name: str | None = None) -> tuple[Entry, ...]:
        """Compares every file with its checksum; faults are the entries' `problem`.

        Args:
            name: of one entry; None for all.
        """
        checked = []
        for entry in (self.find(name),) if name is not None else self.list():
            if entry.manifest is not None and not entry.problem:
                try:
                    check_files(entry.folder, entry.manifest)
                except SnapshotUnusable as error:
                    entry = replace(entry, problem=str(error))
            checked.append(entry)
        return tuple(checked)

    # What it may take.

    def quota(self) -> Quota:
        """The limit, and what is used of it."""
        used_bytes = sum(entry.size_bytes for entry in self.list())
        return Quota(self._limit_bytes(), used_bytes)

    def set_quota(self, limit_bytes: int) -> None:
        """Changes the limit, and makes room at once if it was lowered.

        Args:
            limit_bytes: 0 keeps nothing from now on.

        Raises:
            InvalidSetting: it is negative.
        """
        if limit_bytes < 0:
            raise InvalidSetting(f"The quota is {limit_bytes}; it must be 0 bytes or more.")
        words = json.dumps({"quota_bytes": limit_bytes}).encode()
        with self._guarded():
            write_aside(self.folder / _SETTINGS, words)
        self.make_room(0)

    def make_room(self, wanted_bytes: int, keeping: str = "") -> bool:
        """Deletes what was used least recently until so much more fits the quota.

        Args:
            wanted_bytes: to be written.
            keeping: id of an entry that stays.

        Returns:
            Whether it fits now.
        """
        with self._guarded():
            limit_bytes = self._limit_bytes()
            for entry in self.beyond(limit_bytes, wanted_bytes, keeping):
                self._delete(entry.folder)
            return self.quota().used_bytes + wanted_bytes <= limit_bytes

    def beyond(
        self, limit_bytes: int, wanted_bytes: int = 0, keeping: str = ""
    ) -> tuple[Entry, ...]:
        """What a limit has no room for: entries used least recently, never those in use.

        Args:
            limit_bytes: for all together.
            wanted_bytes: more to be written.
            keeping: id of an entry that stays.
        """
        entries, gone = self.list(), list[Entry]()
        used_bytes = sum(entry.size_bytes for entry in entries)
        for entry in reversed(entries):
            if used_bytes + wanted_bytes <= limit_bytes:
                break
            if entry.id != keeping and _is_ours(entry.folder) and not self.is_in_use(entry.id):
                gone.append(entry)
                used_bytes -= entry.size_bytes
        return tuple(gone)

    # What a prompt finds, and leaves.

    def best_match(
        self,
        fingerprint: dict[str, str],
        prompt_ids: Sequence[int],
        *,
        except_for: Collection[str] = (),
    ) -> Match | None:
        """The entry that saves most of the reading of a prompt.

        Args:
            fingerprint: of the model.
            prompt_ids: the whole prompt.
            except_for: ids of entries that were tried in vain.
        """
        blocks, candidates = block_digests(prompt_ids), list[tuple[float, Entry, Manifest]]()
        for entry in self.list():
            manifest = entry.manifest
            if manifest is None or entry.problem or entry.id in except_for:
                continue
            if manifest.fingerprint != fingerprint:
                continue
            pairs = zip(manifest.blocks, blocks, strict=False)
            alike = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            if alike or not (manifest.blocks and blocks):
                most = min((alike + 1) * BLOCK_TOKENS - 1, manifest.tokens, len(prompt_ids))
                candidates.append((most * entry.fraction, entry, manifest))
        best: Match | None = None
        # Those that may save most come first, so that of most entries no ids are read.
        for most_worth, entry, manifest in sorted(candidates, key=lambda one: -one[0]):
            if best is not None and most_worth <= best.worth:
                break
            try:
                ids = read_token_ids(entry.folder, manifest)
            except SnapshotUnusable:
                continue
            pairs_of_ids = enumerate(zip(ids, prompt_ids, strict=False))
            shorter = min(len(ids), len(prompt_ids))
            match = Match(entry, next((i for i, (a, b) in pairs_of_ids if a != b), shorter))
            if match.common_tokens and (best is None or match.worth > best.worth):
                best = match
        return best

    @contextlib.contextmanager
    def using(self, entry_id: str) -> Iterator[None]:
        """Marks an entry as in use by this process."""
        mark = self.mark(entry_id)
        try:
            yield
        finally:
            mark.release()

    def mark(self, entry_id: str) -> Mark:
        """Marks an entry as in use by this process until the mark is released."""
        with self._guarded():
            return Mark(self.folder / _LOCKS, entry_id)

    def claim(self, entry: Entry) -> Mark | None:
        """Marks an entry to be opened; None if it is gone, or another one writes in it."""
        with self._guarded():
            if not entry.folder.is_dir() or (not entry.is_whole and self.is_in_use(entry.id)):
                return None
            return Mark(self.folder / _LOCKS, entry.id)

    def new_folder(self) -> Path:
        """Where a new reading is to be kept, until `place` makes it an entry."""
        return self.folder / f"{PARTIAL}{uuid.uuid4().hex}"

    def describe(self, folder: Path, documents: Sequence[DocumentInfo]) -> None:
        """Names a folder after its documents."""
        with self._guarded():
            taken = {entry.name for entry in self.list()}
            wanted = ", ".join(document.name for document in documents[:3]) or "Conversation"
            if len(documents) > 3:
                wanted += f" and {len(documents) - 3} more"
            wanted = wanted[: _NAME_CHARACTERS - 8]
            name, number = wanted, 2
            while name in taken:
                name, number = f"{wanted} ({number})", number + 1
            self._write_entry(self._used(Entry(id=_id(folder), folder=folder, name=name)))

    def place(self, folder: Path, superseded: Sequence[Entry] = ()) -> None:
        """Makes a folder that is whole now an entry, in the place of others it goes beyond."""
        with self._guarded():
            placed = self.folder / _id(folder)
            folder.replace(placed)
            flush_folder(self.folder)
            gone = [e for e in superseded if e.is_whole or not self.is_in_use(e.id)]
            names = [_kept(entry.folder / _ENTRY).get("name") for entry in gone]
            for entry in gone:
                self._delete(entry.folder)
            if name := next((name for name in names if isinstance(name, str)), ""):
                # A person may have given it.
                self._write_entry(replace(self._entry(placed), name=name))
        self.make_room(0, keeping=_id(folder))

    def touch(self, entry: Entry) -> None:
        """The entry is used now."""
        with self._guarded(), contextlib.suppress(OSError):
            if entry.folder.is_dir():
                self._write_entry(self._used(entry))

    # Folders and files.

    def _folders(self) -> Iterator[Path]:
        for path in tuple(self.folder.iterdir()):
            is_ours = path.name.startswith(PARTIAL) or not path.name.startswith(".")
            if is_ours and path.is_dir() and not path.is_symlink():
                yield path

    def _entry(self, folder: Path) -> Entry:
        kept = _kept(folder / _ENTRY)
        entry = Entry(
            id=_id(folder),
            folder=folder,
            name=str(kept.get("name") or _id(folder)),
            used_at=str(kept.get("used_at", "")),
            used_number=_whole(kept.get("used_number")),
        )
        try:
            manifest = self._manifest(folder)
        except SnapshotUnusable as error:
            # What was not made here is named, but neither counted nor deleted.
            ours = folder.glob("*") if _is_ours(folder) else ()
            size_bytes = sum(_size(path) or 0 for path in ours)
            return replace(entry, problem=str(error), size_bytes=size_bytes)
        problem = ""
        for name, written in manifest.files.items():
            if _size(folder / name) != written.bytes:
                problem = (
                    f"{name} of the prepared document in {folder} is damaged, so it is not used. "
                    "Forget it; the document is read again when it is asked about."
                )
                break
        return replace(
            entry,
            model=manifest.model,
            tokens=manifest.tokens,
            size_bytes=manifest.size_bytes,
            created_at=manifest.created_at,
            documents=_documents(manifest.extra.get("documents")),
            fraction=_fraction(manifest),
            problem=problem,
            manifest=manifest,
        )

    def _manifest(self, folder: Path) -> Manifest:
        try:
            stat = (folder / MANIFEST).stat()
        except OSError:
            return read_manifest(folder)
        key = (folder, stat.st_mtime_ns, stat.st_size)
        if key not in self._manifests:
            self._manifests[key] = read_manifest(folder)
        return self._manifests[key]

    def _used(self, entry: Entry) -> Entry:
        numbers = [_whole(_kept(folder / _ENTRY).get("used_number")) for folder in self._folders()]
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return replace(entry, used_number=max(numbers, default=0) + 1, used_at=now)

    def _write_entry(self, entry: Entry) -> None:
        entry.folder.mkdir(mode=0o700, exist_ok=True)
        words = {
            "name": entry.name,
            "used_number": entry.used_number,
            "used_at": entry.used_at,
        }
        write_aside(entry.folder / _ENTRY, json.dumps(words).encode())

    def _delete(self, folder: Path) -> None:
        # First out of sight: whatever happens on the way, nobody finds half of it.
        hidden = self.folder / f".deleted-{uuid.uuid4().hex}"
        with contextlib.suppress(FileNotFoundError):
            folder.replace(hidden)
            shutil.rmtree(hidden, ignore_errors=True)

    def _limit_bytes(self) -> int:
        kept = _kept(self.folder / _SETTINGS).get("quota_bytes")
        if isinstance(kept, int) and kept >= 0:
            return kept
        disk_bytes = shutil.disk_usage(self.folder).total
        return min(_DEFAULT_QUOTA_BYTES, int(_DEFAULT_DISK_SHARE * disk_bytes))

    # Several processes.

    def _guarded(self) -> filelock.BaseFileLock:
        """Held while entries come and go; the same process may hold it within itself."""
        return filelock.FileLock(
            self.folder / _LOCKS / "library", timeout=_LOCK_SECONDS, mode=0o600, is_singleton=True
        )

    def is_in_use(self, entry_id: str) -> bool:
        """Whether a process that lives uses an entry, this one included."""
        return any(_is_held(path) for path in (self.folder / _LOCKS).glob(f"{entry_id}.*.lock"))

    def _sweep(self) -> None:
        """Removes what ended processes left that is of no use; places what is whole."""
        with self._guarded():
            for path in (self.folder / _LOCKS).glob("*.lock"):
                _is_held(path)
            for path in self.folder.glob(".deleted-*"):
                shutil.rmtree(path, ignore_errors=True)
            for folder in self._folders():
                if not folder.name.startswith(PARTIAL) or self.is_in_use(_id(folder)):
                    continue
                try:
                    if read_manifest(folder).progress is None:
                        folder.replace(self.folder / _id(folder))
                except SnapshotUnusable:
                    shutil.rmtree(folder, ignore_errors=True)


class Mark:
    """Says that this process uses an entry.

    Args:
        folder: of the lock files.
        entry_id: whose.
    """

    def __init__(self, folder: Path, entry_id: str) -> None:
        self._path = folder / f"{entry_id}.{uuid.uuid4().hex}.lock"
        self._lock = filelock.FileLock(self._path, mode=0o600, thread_local=False)
        self._lock.acquire()

    def release(self) -> None:
        """It does not any more."""
        self._lock.release()
        self._path.unlink(missing_ok=True)


def _is_held(path: Path) -> bool:
    """Whether a living process holds the lock; one that nobody holds is removed."""
    lock = filelock.FileLock(path, mode=0o600)
    try:
        lock.acquire(blocking=False)
    except (filelock.Timeout, OSError):
        return True
    lock.release()
    path.unlink(missing_ok=True)
    return False


def _is_ours(folder: Path) -> bool:
    return (folder / MANIFEST).exists() or (folder / _ENTRY).exists()


def _size(path: Path) -> int | None:
    """Bytes of a file; None where there is none (any more)."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _fraction(manifest: Manifest) -> float:
    progress = manifest.progress
    if progress is None:
        return 1.0
    of_layer = (progress.position - progress.past) / max(1, manifest.tokens - progress.past)
    return (progress.layer + of_layer) / max(1, len(manifest.layers))


def _id(folder: Path) -> str:
    return folder.name.removeprefix(PARTIAL)


def _kept(path: Path) -> dict[str, Any]:
    """A small file's content; what is not there or damaged says nothing."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _whole(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _documents(value: object) -> tuple[DocumentInfo, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(
        DocumentInfo(str(item.get("name", "")), str(item.get("digest", "")))
        for item in value
        if isinstance(item, dict)
    )
