"""Which files of a codebase are read: its ignore rules, and what no reader of code wants.

Folders and archives go through the same selection, so dropping either gives the same document.
"""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pathspec

from app.documents.encoding import decode_text
from app.documents.limits import Limits
from app.documents.options import ReadOptions
from app.documents.secrets import secret_by_name
from mom_core.errors import DocumentError

_IGNORE_FILE_BYTES_MAX = 1024 * 1024
_FOLDERS = {
    ".git": "version control",
    ".hg": "version control",
    ".svn": "version control",
    "node_modules": "installed packages",
    "bower_components": "installed packages",
    "site-packages": "installed packages",
    ".venv": "installed packages",
    "venv": "installed packages",
    "vendor": "vendored code",
    "third_party": "vendored code",
    "__pycache__": "build output",
    ".mypy_cache": "build output",
    ".pytest_cache": "build output",
    ".ruff_cache": "build output",
    ".tox": "build output",
    ".gradle": "build output",
    ".idea": "editor settings",
    ".vscode": "editor settings",
    "__MACOSX": "archive leftovers",
}
_LOCK_FILES = {
    "package-lock.json",
    "npm-shrinkwrap.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "bun.lock",
    "bun.lockb",
    "poetry.lock",
    "pdm.lock",
    "uv.lock",
    "pipfile.lock",
    "cargo.lock",
    "composer.lock",
    "gemfile.lock",
    "go.sum",
    "flake.lock",
    "mix.lock",
    "pubspec.lock",
    "podfile.lock",
}
_GENERATED = re.compile(r"\.min\.(js|css)$|\.(map|pyc|snap)$|^\.ds_store$", re.IGNORECASE)
_BINARY = re.compile(
    r"\.(png|jpe?g|gif|bmp|ico|webp|tiff?|psd|mp[34]|wav|flac|ogg|avi|mov|mkv|webm|ttf|otf|woff2?|eot"
    r"|so|dll|dylib|exe|o|a|lib|class|jar|wasm|pyd|npy|npz|pt|pth|onnx|safetensors|gguf|sqlite3?|db"
    r"|bin|dat|pack|idx)$",
    re.IGNORECASE,
)
_MINIFIED_LINE_CHARACTERS = 5_000
_README = re.compile(r"^readme(\.|$)", re.IGNORECASE)
_UNREADABLE_IN_NAMES = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file on offer.

    Args:
        path: inside the folder or archive, with "/" between its parts.
        size_bytes: unpacked, as announced.
        open: gives its bytes.
        place: where it lies on this machine, None inside an archive.
        refused: why it must not be read, None if it may.
    """

    path: str
    size_bytes: int
    open: Callable[[], BinaryIO]
    place: Path | None = None
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """An entry that is not read, or the whole folder they lie in (`where` ends with "/")."""

    where: str
    reason: str
    can_be_put_back: bool
    entries: list[Entry]


@dataclass(frozen=True, slots=True)
class Selection:
    """What is read, in order, and what is not, by path; `notes` are sentences worth showing."""

    chosen: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]


def select(entries: Iterable[Entry], options: ReadOptions, limits: Limits) -> Selection:
    """Decides by names and sizes alone: a read-me file first, then by path."""
    by_path: dict[str, Entry] = {}
    skipped: dict[str, Skipped] = {}
    for entry in entries:
        if (earlier := by_path.get(entry.path)) is not None:
            # Like programs that unpack: the last of a name counts. The others are named at least.
            where = _numbered(entry.path, skipped)
            skipped[where] = Skipped(where, "same name as another", False, [earlier])
        by_path[entry.path] = entry
    rules = _Rules(by_path, options, limits)
    chosen: list[Entry] = []
    for path in sorted(by_path, key=_order):
        verdict = rules.verdict(path, by_path[path])
        if verdict is None:
            chosen.append(by_path[path])
        else:
            known = skipped.setdefault(verdict.where, verdict)
            if known is not verdict:
                known.entries.extend(verdict.entries)
    return Selection(
        tuple(chosen), tuple(skipped[path] for path in sorted(skipped)), tuple(rules.notes)
    )


def skipped_folder(name: str) -> str | None:
    """Why a folder of this name is not entered, None if it is."""
    return _FOLDERS.get(name)


def is_put_back(path: str, options: ReadOptions) -> bool:
    """Whether a path, or a folder it lies in, is to be read whatever speaks against it."""
    return any(
        path == wanted or (wanted.endswith("/") and path.startswith(wanted))
        for wanted in options.put_back
    )


def is_named(path: str, options: ReadOptions) -> bool:
    """Whether it is put back by its own path: a folder brings no secrets along."""
    return path in options.put_back


def too_large(limits: Limits) -> str:
    """Why a file is not read that is one of many."""
    return f"larger than {limits.member_mb} MB; {limits.raising('member_mb')}"


def minified(text: str) -> bool:
    """Whether its lines are too long for a person to have written them."""
    lines = text.count("\n") + 1
    return lines < 10 and len(text) > _MINIFIED_LINE_CHARACTERS * lines


def readable_path(path: str) -> str:
    """The path without what would garble a line: controls, reversals, broken characters."""
    return _UNREADABLE_IN_NAMES.sub("\ufffd", path)


def _patterns(patterns: tuple[str, ...]) -> pathspec.GitIgnoreSpec:
    """Raises `DocumentError` for one that a `.gitignore` could not hold."""
    for pattern in patterns:
        try:
            pathspec.GitIgnoreSpec.from_lines([pattern])
        except ValueError as fault:
            raise DocumentError(
                f"The pattern {pattern!r} cannot be understood; write one as in .gitignore, such "
                'as "*.py" or "tests/".'
            ) from fault
    return pathspec.GitIgnoreSpec.from_lines(patterns)


def _numbered(path: str, taken: Container[str]) -> str:
    return next(
        where for number in itertools.count(1) if (where := f"{path} ({number})") not in taken
    )


def _order(path: str) -> tuple[str, bool, str]:
    folder, name = posixpath.split(path)
    return folder, not _README.match(name), name


class _Rules:
    """Everything that may speak against a file."""

    def __init__(self, by_path: dict[str, Entry], options: ReadOptions, limits: Limits) -> None:
        self._options = options
        self._limits = limits
        self.notes: list[str] = []
        self._ignored = self._ignore_rules(by_path)
        self._include = _patterns(options.include)
        self._exclude = _patterns(options.exclude)
        self._folders: dict[str, tuple[str, str] | None] = {}

    def verdict(self, path: str, entry: Entry) -> Skipped | None:
        """None: it is read."""
        if entry.refused is not None:
            return Skipped(path, entry.refused, False, [entry])
        if not is_put_back(path, self._options):
            folder, _, name = path.rpartition("/")
            if folder and (found := self._folder(folder)) is not None:
                return Skipped(*found, True, [entry])
            if (reason := self._by_name(path, name)) is not None:
                return Skipped(path, reason, True, [entry])
        elif not is_named(path, self._options) and (reason := secret_by_name(path)):
            return Skipped(path, reason, True, [entry])
        if _BINARY.search(path):
            return Skipped(path, "not text", False, [entry])
        if entry.size_bytes > self._limits.member_mb * 1024**2:
            return Skipped(path, too_large(self._limits), False, [entry])
        return None

    def _folder(self, folder: str) -> tuple[str, str] | None:
        """The outermost of the folders around a file that is left out as a whole, and why."""
        if folder not in self._folders:
            above, _, name = folder.rpartition("/")
            found = self._folder(above) if above else None
            if found is None and (reason := skipped_folder(name)) is not None:
                found = folder + "/", reason
            elif found is None and self._is_ignored(folder + "/"):
                found = folder + "/", "ignored by .gitignore"
            self._folders[folder] = found
        return self._folders[folder]

    def _by_name(self, path: str, name: str) -> str | None:
        # Secrets come first: no other rule may hide that there was one.
        if (reason := secret_by_name(name)) is not None:
            return reason
        if self._is_ignored(path):
            return "ignored by .gitignore"
        if name.lower() in _LOCK_FILES:
            return "lock file"
        if _GENERATED.search(name):
            return "generated file"
        if self._options.include and not self._include.match_file(path):
            return "not among the files included"
        if self._exclude.match_file(path):
            return "excluded"
        return None

    def _is_ignored(self, path: str) -> bool:
        ignored = False
        for folder, spec in self._ignored:
            if path.startswith(folder) and path != folder:
                verdict = spec.check_file(path[len(folder) :]).include
                if verdict is not None:
                    ignored = verdict
        return ignored

    def _ignore_rules(self, by_path: dict[str, Entry]) -> list[tuple[str, pathspec.GitIgnoreSpec]]:
        """Each `.gitignore` with its folder, outermost first: a later word overrules an earlier."""
        rules = []
        for path in sorted(by_path, key=lambda path: path.count("/")):
            folder, name = posixpath.split(path)
            entry = by_path[path]
            if name != ".gitignore" or entry.refused is not None:
                continue
            try:
                with entry.open() as file:
                    lines = (decode_text(file.read(_IGNORE_FILE_BYTES_MAX)) or "").splitlines()
            except OSError as fault:
                self.notes.append(
                    f"{path} cannot be read ({fault.strerror or fault}), so what it ignores is "
                    "not ignored."
                )
                continue
            try:
                spec = pathspec.GitIgnoreSpec.from_lines(lines)
            except ValueError:
                # A rule that git itself would not understand must not hide the whole folder.
                continue
            rules.append((folder + "/" if folder else "", spec))
        return rules
