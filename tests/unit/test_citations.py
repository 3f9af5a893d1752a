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


def told(citations: list[Citation]) -> list[tuple[str | None, str, str, str | None, bool]]:
    """All but where in the answer they stand."""
    return [(one.mark, one.document, one.section, one.quote, one.found) for one in citations]


def test_marks_are_looked_up() -> None:
    answer = "Twice [p. 12], see [src/a.py], [Page iv] and [p. 99]. [sic] [1] [manual.pdf, p. 13]"
    assert told(find_citations(answer, BOTH)) == [
        ("p. 12", "manual.pdf", "p. 12", None, True),
        ("src/a.py", "app", "src/a.py", None, True),
        ("Page iv", "manual.pdf", "p. iv", None, True),
        ("p. 99", "", "", None, False),
        ("manual.pdf, p. 13", "manual.pdf", "p. 13", None, True),
    ]


def test_each_citation_tells_where_it_stands_in_the_answer() -> None:
    answer = (
        "🌊 It says “before a storm, and once” [p. 12]; so [ p. 13 ;p. 99 and p. 12], and [p. 13]."
    )
    citations = find_citations(answer, BOTH)
    assert [answer[one.start_character : one.end_character] for one in citations] == [
        "“before a storm, and once”",
        "p. 13",
        "p. 99",
        "p. 12",
        "p. 13",
    ]
    assert [answer[one.mark_start_character : one.mark_end_character] for one in citations] == [
        one.mark for one in citations
    ]
    # Each occurrence is one citation, so that each can be a link.
    assert [one.start_character for one in citations] == sorted(
        {one.start_character for one in citations}
    )


def test_the_span_of_a_quotation_without_a_mark() -> None:
    answer = "It says «before a storm, and once» there."
    (citation,) = find_citations(answer, BOTH)
    assert (citation.start_character, citation.end_character) == (8, 34)
    assert citation.mark_start_character is None
    assert citation.mark_end_character is None


def test_a_mark_in_a_name_with_brackets_stands_inside_them() -> None:
    answer = "See [as in [p. 12] and [src/a.py]]."
    citations = find_citations(answer, BOTH)
    assert [answer[one.start_character : one.end_character] for one in citations] == [
        "p. 12",
        "src/a.py",
    ]


SHIP = Document("ship.pdf", "pdf", (Section("p. 12", "Sails are mended in the winter months."),))


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ("[ship.pdf p. 12]", ("ship.pdf", "p. 12")),
        ("[p. 12 of ship.pdf]", ("ship.pdf", "p. 12")),
        ("[p. 12, ship.pdf]", ("ship.pdf", "p. 12")),
        ("[manual.pdf, page 12]", ("manual.pdf", "p. 12")),
    ],
)
def test_a_named_document_decides_between_pages_of_one_number(
    answer: str, place: tuple[str, str]
) -> None:
    (citation,) = find_citations(answer, [MANUAL, SHIP])
    assert (citation.document, citation.section) == place
    assert citation.also_in == ()


def test_a_mark_that_may_mean_several_documents_names_them_all() -> None:
    (citation,) = find_citations("So [p. 12].", [MANUAL, SHIP])
    assert (citation.document, citation.also_in, citation.found) == (
        "manual.pdf",
        ("ship.pdf",),
        True,
    )
    (citation,) = find_citations("So [pp. 12-13].", [SHIP, MANUAL])
    assert (citation.document, citation.also_in) == ("manual.pdf", ())


def test_the_words_decide_which_document_a_mark_means() -> None:
    (citation,) = find_citations('"mended in the winter" [p. 12]', [MANUAL, SHIP])
    assert (citation.mark, citation.document, citation.found) == ("p. 12", "ship.pdf", True)
    assert citation.also_in == ()


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
    assert told(find_citations(answer, BOTH)) == [
        ("p. 12", "manual.pdf", "p. 12", "before a storm, and once", True),
        ("p. 12", "", "", "never said at all", False),
    ]


def test_short_quotations_are_words_not_proof() -> None:
    assert find_citations('The "rope" and "a b" are names.', BOTH) == []
    assert find_citations("", BOTH) == []
    assert find_citations("No documents [p. 1].", [])[0].found is False


def test_a_wrong_mark_beside_a_true_quotation_is_found_out() -> None:
    answer = 'It says "before a storm, and once" [p. 999].'
    assert told(find_citations(answer, BOTH)) == [
        (None, "manual.pdf", "p. 12", "before a storm, and once", True),
        ("p. 999", "", "", None, False),
    ]


def test_the_marked_page_is_searched_first() -> None:
    pages = (Section("p. 1", "the same words here"), Section("p. 2", "the same words here"))
    document = Document("a.pdf", "pdf", pages)
    (citation,) = find_citations('"the same words here" [p. 2]', [document])
    assert (citation.mark, citation.section) == ("p. 2", "p. 2")


def test_the_shape_of_marks_within_a_quotation_does_not_matter() -> None:
    words = "He said: \u201cWe don\u2019t cut a well\u2011known rope\u201d, and went."
    document = Document("a.txt", "text", (Section("a.txt", words),))
    answer = '\u00abHe said: "We don\'t cut a well-known rope", and went.\u00bb'
    (citation,) = find_citations(answer, [document])
    assert (citation.section, citation.found) == ("a.txt", True)


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
