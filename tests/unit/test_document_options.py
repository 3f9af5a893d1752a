"""The options of the command line that decide how documents are read."""

from __future__ import annotations

from typing import Any

import click
from click.testing import CliRunner

from app.cli.document_options import document_options
from app.documents import DEFAULT_LIMITS, DEFAULT_OPTIONS, Limits, ReadOptions


def parsed(*arguments: str) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    @click.command()
    @document_options
    def command(**given: Any) -> None:
        seen.update(given)

    CliRunner().invoke(command, arguments, catch_exceptions=False)
    return seen


def test_without_options_everything_is_read() -> None:
    assert parsed() == {
        "options": DEFAULT_OPTIONS,
        "limits": DEFAULT_LIMITS,
        "keeps_cache": True,
    }


def test_each_option_arrives() -> None:
    words = (
        "--pages 10-40 --password sesame --extractor pypdf --include *.py --include *.md "
        "--exclude tests/* --put-back vendor/ --keep-headers --keep-hyphens --limit pages=7 "
        "--no-cache"
    )
    assert parsed(*words.split()) == {
        "options": ReadOptions(
            pages="10-40",
            password="sesame",
            extractor="pypdf",
            include=("*.py", "*.md"),
            exclude=("tests/*",),
            put_back=("vendor/",),
            drops_running_lines=False,
            joins_hyphens=False,
        ),
        "limits": Limits(pages=7),
        "keeps_cache": False,
    }
