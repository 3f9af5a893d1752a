"""When documents exceed the context window: the parts that match a question best, by BM25.

Only ever at the person's wish, and said beside the answer. Whole sections are kept or left out;
none is cut.

Source: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond, 2009; the
ranking is that of the library bm25s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.documents.wording import count
from app.prompt.prompt import TokenizedDocument


@dataclass(frozen=True, slots=True)
class Fitted:
    """Documents made to fit.

    Args:
        documents: with the sections that were kept, in their order.
        kept: how many sections those are.
        total: how many there were.
    """

    documents: tuple[TokenizedDocument, ...]
    kept: int
    total: int

    @property
    def sentence(self) -> str:
        """What has to stand beside the answer; "" where all was kept."""
        if self.kept == self.total:
            return ""
        return (
            f"Only {self.kept:,} of {count(self.total, 'part')} were read: those that match the "
            "question best (BM25). The others do not fit into this model's context."
        )


def fit(documents: Sequence[TokenizedDocument], question: str, budget_tokens: int) -> Fitted:
    """Keeps the best parts that fit.

    Args:
        documents: as chosen by the person.
        question: that they are to answer.
        budget_tokens: for all documents together, names and headers included.
    """
    sizes = [len(ids) for document in documents for ids in document.section_ids]
    intros = sum(len(document.intro_ids) for document in documents)
    left = budget_tokens - intros
    if sum(sizes) <= left:
        return Fitted(tuple(documents), len(sizes), len(sizes))
    texts = [section.text for one in documents for section in one.document.sections]
    chosen: set[int] = set()
    for number in _ranked(texts, question):
        if sizes[number] <= left:
            chosen.add(number)
            left -= sizes[number]
    fitted, start = [], 0
    for document in documents:
        end = start + len(document.section_ids)
        fitted.append(document.keeping({n - start for n in chosen if start <= n < end}))
        start = end
    return Fitted(tuple(fitted), len(chosen), len(sizes))


def _ranked(texts: list[str], question: str) -> list[int]:
    """Numbers of the texts that have a word of the question, best first."""
    import bm25s

    corpus = bm25s.tokenize(texts, stopwords=None, show_progress=False)
    words = bm25s.tokenize([question], stopwords=None, show_progress=False, return_ids=False)[0]
    known = [word for word in dict.fromkeys(words) if word in corpus.vocab]
    if not known:
        return []
    index = bm25s.BM25()
    index.index(corpus, show_progress=False)
    scores = index.get_scores(known)
    return [int(n) for n in scores.argsort(kind="stable")[::-1] if scores[n] > 0]
