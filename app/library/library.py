"""The library: prepared documents on disk, so that nothing is read twice.

It is one folder without an index. Every entry is a folder with its manifest
(`mom_core.snapshot`) and a small file with its name and when it was last used. An unfinished
reading is an entry too; its folder begins with `.partial-` until it is whole. Any number of
processes may share a library: each marks what it uses with a lock file, which the system frees
however the process ends. When the quota is reached, the least recently used entry goes first, by
a counter and not by the clock, which may jump. What is in use stays.
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
from dataclasses import replace
from pathlib import Path

import filelock

from app.library.entry import (
    ENTRY_FILE,
    NAME_CHARACTERS,
    PARTIAL,
    DocumentInfo,
    Entry,
    Match,
    Quota,
    documents_of,
    entry_id,
    file_bytes,
    is_entry,
    small_file,
    whole_number,
)
from app.library.in_use import InUse, is_held
from mom_core.errors import InvalidSetting, SnapshotUnusable
from mom_core.files import flush_folder, write_aside
from mom_core.snapshot.manifest import (
    BLOCK_TOKENS,
    MANIFEST,
    Manifest,
    block_digests,
    read_manifest,
)
from mom_core.snapshot.open import check_files, read_token_ids

_SETTINGS, _LOCKS = "settings.json", ".locks"
_DEFAULT_QUOTA_BYTES = 20 * 2**30
_DEFAULT_DISK_SHARE = 0.1
_LOCK_SECONDS = 60


def library_home(home: Path | None = None) -> Path:
    """The folder of a person's own things: as given, or `MOM_HOME`, or the system's place."""
    if home is not None:
        return home
    if named := os.environ.get("MOM_HOME"):
        return Path(named)
    import platformdirs

    return platformdirs.user_data_path("mom-chat", appauthor=False)


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
        if not new_name or len(new_name) > NAME_CHARACTERS or not new_name.isprintable():
            raise InvalidSetting(
                f"The new name has {len(new_name)} characters; it needs 1 to {NAME_CHARACTERS} "
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
            if not is_entry(entry.folder):
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

    def make_room(self, wanted_bytes: int, except_id: str = "") -> bool:
        """Deletes what was used least recently until so much more fits the quota.

        Args:
            wanted_bytes: to be written.
            keeping: id of an entry that stays.

        Returns:
            Whether it fits now.
        """
        with self._guarded():
            limit_bytes = self._limit_bytes()
            for entry in self.beyond(limit_bytes, wanted_bytes, except_id):
                self._delete(entry.folder)
            return self.quota().used_bytes + wanted_bytes <= limit_bytes

    def beyond(
        self, limit_bytes: int, wanted_bytes: int = 0, except_id: str = ""
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
            if entry.id != except_id and is_entry(entry.folder) and not self.is_in_use(entry.id):
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
        in_use = self.in_use(entry_id)
        try:
            yield
        finally:
            in_use.release()

    def in_use(self, entry_id: str) -> InUse:
        """Marks an entry as in use by this process until the mark is released."""
        with self._guarded():
            return InUse(self.folder / _LOCKS, entry_id)

    def claim(self, entry: Entry) -> InUse | None:
        """Marks an entry to be opened; None if it is gone, or another one writes in it."""
        with self._guarded():
            if not entry.folder.is_dir() or (not entry.is_whole and self.is_in_use(entry.id)):
                return None
            return InUse(self.folder / _LOCKS, entry.id)

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
            wanted = wanted[: NAME_CHARACTERS - 8]
            name, number = wanted, 2
            while name in taken:
                name, number = f"{wanted} ({number})", number + 1
            self._write_entry(self._used(Entry(id=entry_id(folder), folder=folder, name=name)))

    def place(self, folder: Path, superseded: Sequence[Entry] = ()) -> None:
        """Makes a folder that is whole now an entry, in the place of others it goes beyond."""
        with self._guarded():
            placed = self.folder / entry_id(folder)
            folder.replace(placed)
            flush_folder(self.folder)
            gone = [e for e in superseded if e.is_whole or not self.is_in_use(e.id)]
            names = [small_file(entry.folder / ENTRY_FILE).get("name") for entry in gone]
            for entry in gone:
                self._delete(entry.folder)
            if name := next((name for name in names if isinstance(name, str)), ""):
                # A person may have given it.
                self._write_entry(replace(self._entry(placed), name=name))
        self.make_room(0, except_id=entry_id(folder))

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
        kept = small_file(folder / ENTRY_FILE)
        entry = Entry(
            id=entry_id(folder),
            folder=folder,
            name=str(kept.get("name") or entry_id(folder)),
            used_at=str(kept.get("used_at", "")),
            used_number=whole_number(kept.get("used_number")),
        )
        try:
            manifest = self._manifest(folder)
        except SnapshotUnusable as error:
            # What was not made here is named, but neither counted nor deleted.
            ours = folder.glob("*") if is_entry(folder) else ()
            size_bytes = sum(file_bytes(path) or 0 for path in ours)
            return replace(entry, problem=str(error), size_bytes=size_bytes)
        problem = ""
        for name, written in manifest.files.items():
            if file_bytes(folder / name) != written.bytes:
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
            documents=documents_of(manifest.extra.get("documents")),
            fraction=manifest.fraction,
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
        numbers = [
            whole_number(small_file(folder / ENTRY_FILE).get("used_number"))
            for folder in self._folders()
        ]
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return replace(entry, used_number=max(numbers, default=0) + 1, used_at=now)

    def _write_entry(self, entry: Entry) -> None:
        entry.folder.mkdir(mode=0o700, exist_ok=True)
        words = {
            "name": entry.name,
            "used_number": entry.used_number,
            "used_at": entry.used_at,
        }
        write_aside(entry.folder / ENTRY_FILE, json.dumps(words).encode())

    def _delete(self, folder: Path) -> None:
        # First out of sight: whatever happens on the way, nobody finds half of it.
        hidden = self.folder / f".deleted-{uuid.uuid4().hex}"
        with contextlib.suppress(FileNotFoundError):
            folder.replace(hidden)
            shutil.rmtree(hidden, ignore_errors=True)

    def _limit_bytes(self) -> int:
        kept = small_file(self.folder / _SETTINGS).get("quota_bytes")
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
        return any(is_held(path) for path in (self.folder / _LOCKS).glob(f"{entry_id}.*.lock"))

    def _sweep(self) -> None:
        """Removes what ended processes left that is of no use; places what is whole."""
        with self._guarded():
            for path in (self.folder / _LOCKS).glob("*.lock"):
                is_held(path)
            for path in self.folder.glob(".deleted-*"):
                shutil.rmtree(path, ignore_errors=True)
            for folder in self._folders():
                if not folder.name.startswith(PARTIAL) or self.is_in_use(entry_id(folder)):
                    continue
                try:
                    if read_manifest(folder).progress is None:
                        folder.replace(self.folder / entry_id(folder))
                except SnapshotUnusable:
                    shutil.rmtree(folder, ignore_errors=True)
