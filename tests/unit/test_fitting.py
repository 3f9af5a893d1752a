"""Making documents fit: whole parts by BM25, in their order, said."""

from __future__ import annotations

from array import array

from app.documents import Document, Section
from app.prompt.fitting import fit
from app.prompt.prompt import TokenizedDocument


def tokenized(name: str, *texts: str) -> TokenizedDocument:
    sections = tuple(Section(f"p. {n}", text) for n, text in enumerate(texts, 1))
    ids = [array("I", range(len(text.split()))) for text in texts]
    return TokenizedDocument(Document(name, "pdf", sections), array("I", [0, 0]), ids)


ONE = tokenized(
    "one", "ropes and knots here", "the weather is fair today", "storm breaks all ropes"
)
TWO = tokenized("two", "a storm of a question", "nothing of that sort")


def test_what_fits_is_left_alone() -> None:
    fitted = fit([ONE, TWO], "storm", 100)
    assert fitted.documents == (ONE, TWO)
    assert fitted.sentence == ""


def test_the_best_parts_are_kept_in_their_order() -> None:
    fitted = fit([ONE, TWO], "Which ropes break in a storm?", 4 + 13)
    kept = [[s.label for s in document.document.sections] for document in fitted.documents]
    assert kept == [["p. 1", "p. 3"], ["p. 1"]]
    assert sum(document.tokens for document in fitted.documents) <= 17
    assert fitted.sentence == (
        "Only 3 of 5 parts were read: those that match the question best (BM25). The others do "
        "not fit into this model's context."
    )


def test_a_part_that_does_not_fit_is_left_out_whole_and_the_next_one_is_tried() -> None:
    long = tokenized("one", "storm " * 50, "a storm of words and of more words")
    (document,) = fit([long], "storm", 2 + 8).documents
    assert [section.label for section in document.document.sections] == ["p. 2"]


def test_room_is_not_filled_with_what_has_nothing_to_do_with_the_question() -> None:
    fitted = fit([ONE, TWO], "storm", 4 + 18)
    kept = [[s.label for s in document.document.sections] for document in fitted.documents]
    assert kept == [["p. 3"], ["p. 1"]]


def test_a_question_without_known_words_keeps_nothing() -> None:
    assert fit([ONE], "xylophone", 6).kept == 0
    assert fit([ONE], "", 6).kept == 0
