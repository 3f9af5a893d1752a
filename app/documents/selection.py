"""Which files of a codebase are read: its ignore rules, and what no reader of code wants.

Folders and archives go through the same selection, so dropping either gives the same document.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pathspec

from app.documents.document import LeftOut, Section
from app.documents.text import decode_text

FILE_BYTES_MAX = 8 * 1024 * 1024

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
_MINIFIED_LINE_CHARACTERS = 5_000
_README = re.compile(r"^readme(\.|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file on offer.

    Args:
        path: inside the folder or archive, with "/" between its parts.
        size_bytes: unpacked, as announced.
        load: gives its bytes.
        refused: why it must not be read, None if it may.
    """

    path: str
    size_bytes: int
    load: Callable[[], bytes]
    refused: str | None = None


def select(entries: Iterable[Entry]) -> tuple[tuple[Section, ...], tuple[LeftOut, ...]]:
    """Reads the files worth reading, a read-me file first, then by path."""
    by_path = {entry.path: entry for entry in entries}
    rules = _ignore_rules(by_path)
    sections: list[Section] = []
    left_out: dict[str, LeftOut] = {}
    for path in sorted(by_path, key=_order):
        where, reason = _skipped(path, by_path[path], rules)
        if reason is None:
            text = decode_text(by_path[path].load())
            reason = _unreadable(text)
            if reason is None and text is not None:
                sections.append(Section(path, text))
                continue
        left_out.setdefault(where, LeftOut(where, str(reason)))
    return tuple(sections), tuple(left_out[path] for path in sorted(left_out))


def skipped_folder(name: str) -> str | None:
    """Why a folder of this name is never entered, None if it is."""
    return _FOLDERS.get(name)


def _order(path: str) -> tuple[str, bool, str]:
    folder, name = posixpath.split(path)
    return folder, not _README.match(name), name


def _skipped(
    path: str, entry: Entry, rules: list[tuple[str, pathspec.PathSpec]]
) -> tuple[str, str | None]:
    """What is left out (the file, or the whole folder it lies in) and why; None: read it."""
    parts = path.split("/")
    for depth, name in enumerate(parts[:-1]):
        folder = "/".join(parts[: depth + 1])
        if (reason := skipped_folder(name)) is not None:
            return folder + "/", reason
        if _is_ignored(folder + "/", rules):
            return folder + "/", "ignored by .gitignore"
    name = parts[-1]
    if entry.refused is not None:
        return path, entry.refused
    if _is_ignored(path, rules):
        return path, "ignored by .gitignore"
    if name.lower() in _LOCK_FILES:
        return path, "lock file"
    if _GENERATED.search(name):
        return path, "generated file"
    if entry.size_bytes > FILE_BYTES_MAX:
        return path, f"larger than {FILE_BYTES_MAX // 1024**2} MB"
    return path, None


def _unreadable(text: str | None) -> str | None:
    if text is None:
        return "not text"
    if not text.strip():
        return "empty"
    if text.count("\n") < 10 and len(text) > _MINIFIED_LINE_CHARACTERS * (text.count("\n") + 1):
        return "minified or generated"
    return None


def _ignore_rules(by_path: dict[str, Entry]) -> list[tuple[str, pathspec.PathSpec]]:
    """Each `.gitignore` with its folder, outermost first: a later word overrules an earlier."""
    rules = []
    for path in sorted(by_path, key=lambda path: path.count("/")):
        folder, name = posixpath.split(path)
        entry = by_path[path]
        if name == ".gitignore" and entry.refused is None and entry.size_bytes < FILE_BYTES_MAX:
            lines = (decode_text(entry.load()) or "").splitlines()
            try:
                spec = pathspec.GitIgnoreSpec.from_lines(lines)
            except ValueError:
                # A rule that git itself would not understand must not hide the whole folder.
                continue
            rules.append((folder + "/" if folder else "", spec))
    return rules


def _is_ignored(path: str, rules: list[tuple[str, pathspec.PathSpec]]) -> bool:
    ignored = False
    for folder, spec in rules:
        if path.startswith(folder) and path != folder:
            verdict = spec.check_file(path[len(folder) :]).include
            if verdict is not None:
                ignored = verdict
    return ignored
