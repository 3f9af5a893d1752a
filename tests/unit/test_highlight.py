"""Runs of code with a kind each: nothing is lost, nothing becomes markup."""

from __future__ import annotations

from itertools import pairwise

import pytest

from app.ui.views.highlight import highlighted

CODE = '# note\nclass Tide:\n    def rise(self):\n        return "up" + str(42)\n'


def test_kinds_of_code() -> None:
    runs = highlighted(CODE, "tide.py", "python")
    assert runs is not None
    assert {("comment", "# note"), ("name", "Tide"), ("name", "rise"), ("string", '"up"')} <= {
        (kind, text.strip()) for kind, text in runs
    }
    assert ("number", "42") in runs
    assert any(kind == "keyword" and "return" in text for kind, text in runs)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (CODE, "a.py"),
        ("\n\n  x = 1\n\n", "a.py"),
        ("no end of line", "a.rs"),
        ("x = 1\r\ny = 2\r\n", "a.py"),
        ("\ufeffx = 1\n", "a.py"),
        ("<script>alert('&')</script>", "a.html"),
        ("\tdef broken(:\n'", "a.py"),
        ("int main() { return 0; } // \N{SNOWMAN}", "a.c"),
        ("", "a.py"),
    ],
)
def test_the_text_stays_the_same(text: str, name: str) -> None:
    runs = highlighted(text, name, "some")
    assert runs is not None
    assert "".join(piece for _, piece in runs) == text
    # Neighbours of one kind are one run.
    assert all(one[0] != other[0] for one, other in pairwise(runs))


@pytest.mark.parametrize(
    ("text", "name", "language"),
    [
        (CODE, "notes.py", ""),
        (CODE, "file.of-no-language-at-all", "python"),
        ("x" * 200_001, "long.py", "python"),
    ],
    ids=["no language", "unknown name", "too long"],
)
def test_what_stays_plain(text: str, name: str, language: str) -> None:
    assert highlighted(text, name, language) is None
