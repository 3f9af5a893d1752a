"""What people read is written in short sentences: README, docs, and the wording of the page."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import pytest

from benchmarks.record import ROOT

LONGEST_WORDS = 35
MEAN_WORDS = 18
README_LINES = 150
LINE_CHARACTERS = 110
# A full stop behind these ends no sentence.
_ABBREVIATIONS = re.compile(r"\b(e\.g|i\.e|p|vs|cf)\.", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')*\]]*\s+")
_LIST_ITEM = re.compile(r"^\s*([-*]|\d+\.)\s+")
_JS_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|`(?:[^`$\\]|\\.|\$\{[^{}`]*\})*`')

# docs/log.md is history and stays as it was written.
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "assets" / "samples" / "README.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.name != "log.md"),
]
PYTHON = [
    ROOT / "app" / "wording.py",
    ROOT / "app" / "documents" / "wording.py",
    ROOT / "app" / "ui" / "views" / "documents_wording.py",
    *sorted((ROOT / "app" / "ui" / "panels").glob("*.py")),
]
SCRIPT = ROOT / "app" / "ui" / "static" / "wording.js"


def sentences(paragraph: str) -> list[str]:
    """The sentences of running text, without its Markdown."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", paragraph)
    text = re.sub(r"`[^`]*`", "code", text)
    text = re.sub(r"https?://\S+", "address", text)
    text = _ABBREVIATIONS.sub(r"\1", text)
    return [one for one in _SENTENCE_END.split(" ".join(text.split())) if words(one)]


def words(sentence: str) -> list[str]:
    """The words of a sentence; a mark alone, such as a dash, is none."""
    return [word for word in sentence.split() if re.search(r"\w", word)]


def paragraphs(markdown: str) -> Iterator[str]:
    """Paragraphs and list items; headings, tables, code, comments and pictures are left out."""
    text = re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    block: list[str] = []
    for line in [*text.splitlines(), ""]:
        is_left_out = not line.strip() or line.startswith(("#", "|", "![", "    "))
        if (is_left_out or _LIST_ITEM.match(line)) and block:
            yield " ".join(block)
            block = []
        if not is_left_out:
            block.append(_LIST_ITEM.sub("", line))


def python_strings(source: str) -> Iterator[str]:
    """The texts of a module, without docstrings; a placeholder counts as one word."""
    tree = ast.parse(source)
    inside = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            inside |= {id(one) for one in ast.walk(node)}
        if isinstance(node, ast.JoinedStr):
            inside |= {id(one) for one in ast.walk(node) if one is not node}
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                one.value if isinstance(one, ast.Constant) else "1" for one in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def script_strings(source: str) -> Iterator[str]:
    """The texts of a script, innermost first; a placeholder counts as one word."""
    rest = re.sub(r"/\*.*?\*/|^\s*//.*$", "", source, flags=re.DOTALL | re.MULTILINE)
    while found := _JS_STRING.search(rest):
        yield re.sub(r"\$\{[^{}]*\}", "1", found[0][1:-1])
        rest = rest[: found.start()] + "0" + rest[found.end() :]


def page_sentences() -> list[str]:
    """What the page says; labels of one to three words are no sentences."""
    texts = [text for path in PYTHON for text in python_strings(path.read_text())]
    texts += script_strings(SCRIPT.read_text())
    pieces = [piece for text in texts for piece in re.split(r"<[^>]*>", text)]
    return [one for piece in pieces for one in sentences(piece) if len(words(one)) > 3]


def complaints(found: list[str]) -> list[str]:
    """What is wrong with these sentences, each with the sentence itself."""
    lengths = [len(words(one)) for one in found]
    wrong = [
        f"{length} words, at most {LONGEST_WORDS}: {one}"
        for one, length in zip(found, lengths, strict=True)
        if length > LONGEST_WORDS
    ]
    if lengths and mean(lengths) >= MEAN_WORDS:
        longest = max(found, key=lambda one: len(words(one)))
        wrong.append(
            f"{mean(lengths):.1f} words on average, under {MEAN_WORDS}; longest: {longest}"
        )
    return wrong


def long_lines(markdown: str) -> list[str]:
    """Lines over the limit; tables and pictures have none."""
    lines = markdown.splitlines()
    return [
        line for line in lines if len(line) >= LINE_CHARACTERS and not line.startswith(("|", "!["))
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_documents_are_written_in_short_sentences(path: Path) -> None:
    text = path.read_text()
    found = [one for paragraph in paragraphs(text) for one in sentences(paragraph)]
    assert complaints(found) == []
    assert long_lines(text) == []


def test_the_page_speaks_in_short_sentences() -> None:
    found = page_sentences()
    assert len(found) > 60
    assert "Type a question first." in found
    assert complaints(found) == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < README_LINES


LONG = "This sentence " + "goes on and " * 12 + "ends at last."


def test_a_long_sentence_is_found() -> None:
    text = f"# Title\n\nShort. {LONG} Short again.\n\n- One item.\n- {LONG}\n"
    found = [one for paragraph in paragraphs(text) for one in sentences(paragraph)]
    assert [one for one in found if one in ("Short.", "Short again.", "One item.")]
    assert len(found) == 5
    wrong = complaints(found)
    assert len([one for one in wrong if one.endswith(LONG) and "41 words" in one]) == 2
    assert complaints(list(python_strings(f"'''{LONG}'''\nx = 1\n"))) == []
    assert len(complaints(list(python_strings(f"x = f'{LONG} {{x}}'")))) == 2
    assert len(complaints(list(script_strings(f"const a = (b) => `${{b ? `{LONG}` : 1}}`;")))) == 2


def test_a_high_mean_is_found() -> None:
    even = "Word " + "after word " * 9 + "ends."
    assert complaints([even]) == [f"20.0 words on average, under 18; longest: {even}"]


def test_a_long_line_is_found() -> None:
    line = "x" * LINE_CHARACTERS
    assert long_lines(f"{line}\n| {line} |\n![{line}](a.png)\n{line[1:]}\n") == [line]


def test_what_is_no_prose_is_left_out() -> None:
    text = (
        f"# Heading\n\n| table | {LONG} |\n\n    {LONG}\n\n```\n{LONG}\n```\n\n"
        "See p. 12, e.g. [the page](https://a.example/b?c=d) and `a command --with options`.\n"
    )
    found = [one for paragraph in paragraphs(text) for one in sentences(paragraph)]
    assert found == ["See p 12, e.g the page and code."]
