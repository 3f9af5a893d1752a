"""A document of the list, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from app.documents import (
    DEFAULT_OPTIONS,
    Document,
    Limits,
    ReadOptions,
)
from app.prompt.prompt import TokenizedDocument
from app.workspace.document_state import DocumentState


@dataclass(frozen=True, slots=True)
class Source:
    """Where a document comes from.

    Args:
        path: of a file or folder on this machine.
        name: shown to people.
        is_upload: `path` is a folder of numbered files beside the list of their names.
    """

    path: Path
    name: str
    is_upload: bool = False


@dataclass(slots=True)
class ListedDocument:
    """A document and how far it is.

    Args:
        source: where it comes from.
        state: what the page shows of it.
        limits: of reading it.
        options: how it is read.
        turn: grows whenever it is to be read again.
        choice: grows whenever other sections are ticked.
        document: None until it is read.
        tokenized: None until it is counted.
        unticked: numbers of the sections that a person left out.
        unticked_labels: labels of the sections that were left out before it was read again.
    """

    source: Source
    state: DocumentState
    limits: Limits
    options: ReadOptions = DEFAULT_OPTIONS
    turn: int = 0
    choice: int = 0
    document: Document | None = None
    tokenized: TokenizedDocument | None = None
    unticked: frozenset[int] = frozenset()
    unticked_labels: frozenset[str] = frozenset()

    def chosen(self) -> TokenizedDocument | None:
        """The document as it goes into the prompt; None until it is counted."""
        if self.tokenized is None or not self.unticked:
            return self.tokenized
        total = len(self.tokenized.section_ids)
        return self.tokenized.keeping(frozenset(range(total)) - self.unticked)

    def shown(self) -> DocumentState:
        """What the page shows of it."""
        state, chosen = replace(self.state, options=self.options), self.chosen()
        if self.tokenized is None or chosen is None:
            return state
        return replace(
            state,
            tokens=chosen.tokens,
            unticked=len(self.unticked),
            left_out=len(self.tokenized.document.left_out),
            choice=self.choice,
        )
