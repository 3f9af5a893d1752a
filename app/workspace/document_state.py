"""A document of the workspace, as the page lists it."""

from __future__ import annotations

from dataclasses import dataclass

from app.documents.options import DEFAULT_OPTIONS, ReadOptions


@dataclass(frozen=True, slots=True)
class DocumentState:
    """A dropped document.

    Args:
        id: names it to the server.
        name: names it to people.
        progress: pages or files read while it is read, of how many (0 until known).
        sections: "8 pages"; "" until read.
        tokens: in a prompt, of what is ticked; None until counted.
        receipt: the reading receipt; "" until counted.
        left_out: how many files and folders were not read.
        error: why it cannot be read, "" if it can.
        is_locked: a password would open it.
        can_raise: a limit stopped it, and may be raised.
        extractor: of a PDF; "" of anything else.
        is_folder: it holds files that patterns can choose from.
        unticked: how many sections the person left out.
        revision: grows whenever the sections or their tokens change.
        choice: grows whenever the ticks change.
        options: how it is read.
    """

    id: str
    name: str
    progress: tuple[int, int] = (0, 0)
    sections: str = ""
    tokens: int | None = None
    receipt: str = ""
    left_out: int = 0
    error: str = ""
    is_locked: bool = False
    can_raise: bool = False
    extractor: str = ""
    is_folder: bool = False
    unticked: int = 0
    revision: int = 0
    choice: int = 0
    options: ReadOptions = DEFAULT_OPTIONS
