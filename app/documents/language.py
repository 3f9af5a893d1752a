"""The programming language of a source file, by its name."""

from __future__ import annotations

import functools
import posixpath
import re

# Kinds of text in which a name of a language would say nothing.
_PROSE = {"Text only", "Text output"}


def language_of(path: str) -> str:
    """Such as "Python"; "" where the name says nothing."""
    name = posixpath.basename(path)
    names, suffixes = _known()
    stem, dot, suffix = name.rpartition(".")
    return names.get(name) or (suffixes.get(suffix.lower(), "") if stem and dot else "")


@functools.cache
def _known() -> tuple[dict[str, str], dict[str, str]]:
    """Languages by whole name ("Makefile") and by suffix, from Pygments' list."""
    from pygments.lexers import get_all_lexers

    names: dict[str, str] = {}
    suffixes: dict[str, str] = {}
    # Some suffixes have several owners; the list is in the order of its modules, not of use.
    common = {
        "Python",
        "C",
        "C++",
        "JavaScript",
        "HTML",
        "XML",
        "Perl",
        "SQL",
        "R",
        "S",
        "Markdown",
    }
    for language, _, patterns, _ in sorted(
        get_all_lexers(), key=lambda entry: entry[0] not in common
    ):
        if language in _PROSE:
            continue
        for pattern in patterns:
            if match := re.fullmatch(r"\*\.([\w+-]+)", pattern):
                suffixes.setdefault(match[1].lower(), "R" if language == "S" else language)
            elif re.fullmatch(r"[\w.+-]+", pattern):
                names.setdefault(pattern, language)
    return names, suffixes
