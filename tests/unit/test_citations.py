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


def test_a_wrong_mark_beside_a_true_quotation_is_found_out() -> None:
    answer = 'It says "before a storm, and once" [p. 999].'
    assert find_citations(answer, BOTH) == [
        Citation(None, "manual.pdf", "p. 12", "before a storm, and once", True),
        Citation("p. 999", "", "", None, False),
    ]


def test_the_marked_page_is_searched_first() -> None:
    pages = (Section("p. 1", "the same words here"), Section("p. 2", "the same words here"))
    document = Document("a.pdf", "pdf", pages)
    (citation,) = find_citations('"the same words here" [p. 2]', [document])
    assert (citation.mark, citation.section) == ("p. 2", "p. 2")


def test_short_quotations_are_paired_too() -> None:
    assert find_citations('The "dome" is near and the "tower" is old.', BOTH) == []


@pytest.mark.parametrize("mark", ["app/[id]/page.tsx", "app/(id)/page.tsx"])
def test_names_with_brackets(mark: str) -> None:
    code = Document("app", "code", (Section("app/[id]/page.tsx", "x"),))
    assert [c.section for c in find_citations(f"See [{mark}].", [code])] == ["app/[id]/page.tsx"]


@pytest.mark.parametrize(
    ("mark", "found"),
    [("p. 12-13", True), ("pp. 12\u201313", True), ("p. 12-99", False), ("p. 13-12", False)],
)
def test_ranges(mark: str, found: bool) -> None:
    assert [c.found for c in find_citations(f"So [{mark}].", BOTH)] == [found]
