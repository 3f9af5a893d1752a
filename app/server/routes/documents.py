"""Routes of the documents: open, order, choose from, look into, read anew."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Body, Response
from pydantic import Field, StrictBool

from app import wording
from app.documents import Extractor
from app.outside_names import on_this_machine
from app.server.routes.refusals import Route, Text, Wanted
from app.ui.views.highlight import highlighted
from app.workspace.listed_document import Source
from app.workspace.parts import run_lengths, unticked
from app.workspace.workspace import Workspace
from mom_core.errors import InvalidSetting

# More than a browser shows in one piece without trouble.
_SHOWN_CHARACTERS = 1_000_000
_WORDS_CHARACTERS = 4000
_LEFT_OUT_AT_ONCE = 200


class Here(Wanted):
    """A path of this machine."""

    path: Text


class Choice(Wanted):
    """What of a document is read: `pages` as people write them, or ticks as run lengths."""

    pages: Text | None = None
    runs: list[int] | None = None


class Changes(Wanted):
    """How a document is read anew; what is not named stays as it is."""

    put_back: Text | None = None
    raises_limit: bool = False
    password: Text | None = None
    extractor: Extractor = "pdfium"
    drops_running_lines: bool = False
    joins_hyphens: bool = False
    include: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    exclude: Annotated[tuple[Text, ...], Field(strict=False)] = ()


def document_routes(workspace: Workspace) -> APIRouter:
    """All of them, for the documents of one workspace."""
    router = APIRouter(route_class=Route)
    documents = workspace.documents

    @router.post("/documents")
    async def open_here(wanted: Here) -> Response:
        """Opens a path of this machine without copying it."""
        path = on_this_machine(wanted.path)
        documents.add(uuid.uuid4().hex, Source(path, path.name or str(path)))
        return Response(status_code=204)

    @router.delete("/documents/{document_id}")
    async def remove(document_id: str) -> Response:
        documents.remove(document_id)
        return Response(status_code=204)

    @router.put("/documents/order")
    async def order(document_ids: Annotated[list[Text], Body()]) -> Response:
        documents.put_in_order(document_ids)
        return Response(status_code=204)

    @router.get("/documents/{document_id}/parts")
    def parts(document_id: str) -> Any:
        return documents.parts(document_id)

    @router.get("/documents/{document_id}/choice")
    def ticks(document_id: str) -> Any:
        """Which sections are ticked, as run lengths."""
        return run_lengths(documents.ticks(document_id))

    @router.get("/documents/{document_id}/left_out")
    def left_out(document_id: str, start: int = 0) -> Any:
        """Some of what was not read, with the path by which it can be put back, "" if it cannot."""
        entries = documents.left_out(document_id)
        page = entries[max(0, start) :][:_LEFT_OUT_AT_ONCE]
        return {
            "total": len(entries),
            "entries": [
                [wording.left_out(one), one.path if one.can_be_put_back else ""] for one in page
            ],
        }

    @router.get("/documents/{document_id}/parts/{number}")
    def text(document_id: str, number: int) -> Any:
        # Colours of code take a moment, in which the streams of other tabs must not wait.
        section = documents.section(document_id, number)
        doubt = wording.doubts(section.health, bool(section.text.strip()))
        if len(section.text) > _SHOWN_CHARACTERS:
            doubt = f"{doubt} The first {_SHOWN_CHARACTERS:,} characters are shown.".strip()
        shown = section.text[:_SHOWN_CHARACTERS]
        return {
            "label": section.label,
            "text": shown,
            "doubt": doubt,
            **documents.facts(document_id, number),
            "runs": highlighted(shown, section.path or section.label, section.language),
        }

    @router.get("/documents/{document_id}/pages/{number}.png")
    def picture(document_id: str, number: int, width: int = 900) -> Response:
        """A page of a PDF, from 0, drawn in a process of its own."""
        drawn = documents.picture_of(document_id, number, width, "")
        # A document never changes under its id, but how it is read may.
        headers = {"Cache-Control": "private, max-age=600"}
        return Response(drawn.png, media_type="image/png", headers=headers)

    @router.get("/documents/{document_id}/pages/{number}/places")
    def places(document_id: str, number: int, words: str) -> Any:
        """Where on a page some words stand: boxes as shares of the page."""
        return documents.picture_of(document_id, number, 100, words[:_WORDS_CHARACTERS]).places

    @router.put("/documents/{document_id}/parts/{number}/extractor")
    async def reread_page(
        document_id: str, number: int, extractor: Annotated[Extractor, Body()]
    ) -> Response:
        """Another extractor for one page."""
        documents.reread_page(document_id, number, extractor)
        return Response(status_code=204)

    @router.get("/documents/{document_id}/find")
    def find(document_id: str, words: str) -> Any:
        return documents.find(document_id, words)

    @router.put("/documents/{document_id}/choice")
    async def choose(document_id: str, wanted: Choice) -> Response:
        if wanted.pages is not None:
            documents.choose_pages(document_id, wanted.pages)
        elif wanted.runs is not None:
            documents.choose(document_id, unticked(wanted.runs))
        else:
            raise InvalidSetting(
                "The request cannot be understood: it names neither pages nor runs of ticks."
            )
        return Response(status_code=204)

    @router.put("/documents/{document_id}/options")
    async def reread(document_id: str, wanted: Changes) -> Response:
        """Reads anew: with a password, another extractor, or something put back."""
        if wanted.put_back is not None:
            documents.put_back(document_id, wanted.put_back)
        elif wanted.raises_limit:
            documents.raise_limit(document_id)
        else:
            changes = wanted.model_dump(exclude_unset=True, exclude={"put_back", "raises_limit"})
            documents.reread(document_id, **changes)
        return Response(status_code=204)

    @router.put("/fit")
    async def fit(is_wanted: Annotated[StrictBool, Body()]) -> Response:
        """Whether only the parts that match best are read when there is too much."""
        workspace.configure(fits_best_parts=is_wanted)
        return Response(status_code=204)

    return router
