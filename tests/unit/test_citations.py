"""Marks and quotations of an answer against the documents."""

from __future__ import annotations

import pytest

from app.citations import Citation, find_citations
from app.documents import Document, Section

MANUAL = Document(
    "manual.pdf",
    "pdf",
    (
        Section("p. iv", "Foreword of the harbour master."),
        Section(
            "p. 12", "Ropes are tied\ntwice before a storm, and once in fair\nweather. They end"
        ),
        Section("p. 13", "in a knot. “Never cut a rope”, he said."),
    ),
)
CODE = Document("app", "code", (Section("src/a.py", "def tie(rope):\n    return knot(rope)\n"),))
BOTH = [MANUAL, CODE]


def test_marks_are_looked_up() -> None:
    answer = "Twice [p. 12], see [src/a.py], [Page iv] and [p. 99]. [sic] [1] [manual.pdf, p. 13]"
    assert find_citations(answer, BOTH) == [
        Citation("p. 12", "manual.pdf", "p. 12", None, True),
        Citation("src/a.py", "app", "src/a.py", None, True),
        Citation("Page iv", "manual.pdf", "p. iv", None, True),
        Citation("p. 99", "", "", None, False),
        Citation("manual.pdf, p. 13", "manual.pdf", "p. 13", None, True),
    ]


def test_several_marks_in_one_pair_of_brackets() -> None:
    marks = [(c.mark, c.found) for c in find_citations("So [p. 12; p. 13, lib/b.py].", BOTH)]
    assert marks == [("p. 12", True), ("p. 13", True), ("lib/b.py", False)]


@pytest.mark.parametrize(
    ("quote", "section"),
    [
        ("tied twice before a storm", "p. 12"),
        ("Ropes  are\ttied twice", "p. 12"),
        ("They end in a knot.", "p. 12"),
        ("Ropes are tied ... once in fair weather", "p. 12"),
        ("def tie(rope): return knot", "src/a.py"),
        ("tied thrice before a storm", ""),
        ("once in fair weather … tied twice", ""),
    ],
)
def test_quotations_are_searched_word_for_word(quote: str, section: str) -> None:
    for form in (f"“{quote}”", f"«{quote}»", f"„{quote}“"):
        (citation,) = find_citations(f"It says {form} there.", BOTH)
        assert (citation.quote, citation.section, citation.found) == (quote, section, bool(section))
        assert citation.mark is None


def test_a_mark_behind_a_quotation_belongs_to_it() -> None:
    answer = 'It says "before a storm, and once" [p. 12]. And "never said at all" [p. 12].'
    assert find_citations(answer, BOTH) == [
        Citation("p. 12", "manual.pdf", "p. 12", "before a storm, and once", True),
        Citation("p. 12", "", "", "never said at all", False),
    ]


def test_short_quotations_are_words_not_proof() -> None:
    assert find_citations('The "rope" and "a b" are names.', BOTH) == []
    assert find_citations("", BOTH) == []
    assert find_citations("No documents [p. 1].", [])[0].found is False
