"""Text for the pages of made-up PDFs."""

from __future__ import annotations

from tests.documents import make
from tests.documents.make import Text

WORDS = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "omicron",
]


def body(number: int, y: float = 700) -> list[Text]:
    """Lines of running text that no other page has."""
    rotated = WORDS[number % 15 :] + WORDS[: number % 15]
    return [
        Text(72, y - 14 * line, " ".join(rotated) + f" line {number}.{line}") for line in range(8)
    ]


def book(pages: int) -> bytes:
    """Chapter titles above, page numbers below, as a printed book has them."""
    texts = []
    for number in range(1, pages + 1):
        header = (
            f"{number} Harbour Manual" if number % 2 == 0 else f"Chapter {number // 7} {number}"
        )
        texts.append([Text(72, 760, header), *body(number), Text(300, 30, "Harbour Office 2020")])
    return make.pdf(texts)
