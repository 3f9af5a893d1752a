"""A long text in parts, cut at its outermost headings, so that parts can be chosen and cited."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from app.documents.document import DocumentKind, Section
from app.documents.encoding import clean
from app.documents.parts import Begun, Done, Job, Note, Opened, Part

_LABEL_CHARACTERS = 60
_PARTS_MIN = 2


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, heading or table.

    Args:
        text: without a line end.
        level: 1 for the outermost heading, 0 for what is no heading.
    """

    text: str
    level: int = 0

    @property
    def line(self) -> str:
        """As it stands in the text."""
        return "#" * self.level + " " + self.text if self.level else self.text


def sections_of(
    job: Job, kind: DocumentKind, blocks: Iterable[Block], comments: int = 0
) -> Iterator[Part]:
    """The parts of a document; one without headings is one section with the document's name.

    Args:
        job: what is asked.
        kind: the document's kind.
        blocks: all of its text.
        comments: how many stand in its margin, which are no part of the text.
    """
    groups: list[tuple[str, list[str]]] = [(job.name, [])]
    blocks = list(blocks)
    outermost = min((block.level for block in blocks if block.level), default=0)
    has_parts = sum(block.level == outermost for block in blocks if outermost) >= _PARTS_MIN
    for block in blocks:
        if has_parts and block.level == outermost:
            label = " ".join(block.text.split())[:_LABEL_CHARACTERS] or "untitled"
            groups.append((label, []))
        groups[-1][1].append(block.line)
    texts = [(label, clean("\n\n".join(lines)).strip()) for label, lines in groups]
    if has_parts and not texts[0][1]:
        texts.pop(0)
    yield Opened(kind, len(texts))
    if comments:
        yield Note(f"Comments in its margin were left out ({comments:,}).")
    seen: dict[str, int] = {}
    for unit in job.units(len(texts)):
        label, text = texts[unit]
        seen[label] = seen.get(label, 0) + 1
        if seen[label] > 1:
            label = f"{label} ({seen[label]})"
        yield Begun(unit, label)
        yield Section(label, text)
        yield Done(unit)
