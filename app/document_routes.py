"""Routes of the documents: open, order, choose from, look into, read anew."""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import APIRouter, Request, Response

from app.documents import EXTRACTORS
from app.outside_names import on_this_machine
from app.parts_view import runs, unticked
from app.refusals import refusals
from app.shelf import Source
from app.ui import wording
from app.ui.highlight import highlighted
from app.workspace import Workspace
from mom_core.errors import InvalidSetting

# More than a browser shows in one piece without trouble.
_SHOWN_CHARACTERS = 1_000_000
_WORDS_CHARACTERS = 4000
_LEFT_OUT_AT_ONCE = 200
_CHANGES = frozenset({"password", "extractor", "drops_running_lines", "joins_hyphens"})
_CHANGES_LISTS = frozenset({"include", "exclude"})


def document_routes(workspace: Workspace) -> APIRouter:
    """All of them, for the documents of one workspace."""
    router = APIRouter()
    shelf = workspace.shelf

    @router.post("/documents")
    async def open_here(request: Request) -> Response:
        """Opens a path of this machine without copying it."""
        wanted = await request.json()
        with refusals():
            path = on_this_machine(str(wanted["path"]))
        shelf.add(uuid.uuid4().hex, Source(path, path.name or str(path)))
        return Response(status_code=204)

    @router.delete("/documents/{document_id}")
    async def remove(document_id: str) -> Response:
        shelf.remove(document_id)
        return Response(status_code=204)

    @router.put("/documents/order")
    async def order(request: Request) -> Response:
        shelf.put_in_order([str(key) for key in await request.json()])
        return Response(status_code=204)

    @router.get("/documents/{document_id}/parts")
    def parts(document_id: str) -> Any:
        with refusals():
            return shelf.parts(document_id)

    @router.get("/documents/{document_id}/choice")
    def ticks(document_id: str) -> Any:
        """Which sections are ticked, as run lengths."""
        with refusals():
            return runs(shelf.ticks(document_id))

    @router.get("/documents/{document_id}/left_out")
    def left_out(document_id: str, start: int = 0) -> Any:
        """Some of what was not read, with the path by which it can be put back, "" if it cannot."""
        with refusals():
            entries = shelf.left_out(document_id)
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
        with refusals():
            section = shelf.section(document_id, number)
        doubt = wording.doubts(section.health, bool(section.text.strip()))
        if len(section.text) > _SHOWN_CHARACTERS:
            doubt = f"{doubt} The first {_SHOWN_CHARACTERS:,} characters are shown.".strip()
        shown = section.text[:_SHOWN_CHARACTERS]
        return {
            "label": section.label,
            "text": shown,
            "doubt": doubt,
            **shelf.facts(document_id, number),
            "runs": highlighted(shown, section.path or section.label, section.language),
        }

    @router.get("/documents/{document_id}/pages/{number}.png")
    def picture(document_id: str, number: int, width: int = 900) -> Response:
        """A page of a PDF, from 0, drawn in a process of its own."""
        with refusals():
            drawn = shelf.picture_of(document_id, number, width, "")
        # A document never changes under its id, but how it is read may.
        headers = {"Cache-Control": "private, max-age=600"}
        return Response(drawn.png, media_type="image/png", headers=headers)

    @router.get("/documents/{document_id}/pages/{number}/places")
    def places(document_id: str, number: int, words: str) -> Any:
        """Where on a page some words stand: boxes as shares of the page."""
        with refusals():
            return shelf.picture_of(document_id, number, 100, words[:_WORDS_CHARACTERS]).places

    @router.put("/documents/{document_id}/parts/{number}/extractor")
    async def reread_page(document_id: str, number: int, request: Request) -> Response:
        """Another extractor for one page."""
        wanted = await request.json()
        with refusals():
            extractor = next((one for one in EXTRACTORS if one == wanted), None)
            if extractor is None:
                raise InvalidSetting(f"The extractor must be one of {', '.join(EXTRACTORS)}.")
            shelf.reread_page(document_id, number, extractor)
        return Response(status_code=204)

    @router.get("/documents/{document_id}/find")
    def find(document_id: str, words: str) -> Any:
        with refusals():
            return shelf.find(document_id, words)

    @router.put("/documents/{document_id}/choice")
    async def choose(document_id: str, request: Request) -> Response:
        wanted = await request.json()
        with refusals():
            if "pages" in wanted:
                shelf.choose_pages(document_id, str(wanted["pages"]))
            else:
                shelf.choose(document_id, unticked(wanted["runs"]))
        return Response(status_code=204)

    @router.put("/documents/{document_id}/options")
    async def reread(document_id: str, request: Request) -> Response:
        """Reads anew: with a password, another extractor, or something put back."""
        wanted = await request.json()
        with refusals():
            if "put_back" in wanted:
                shelf.put_back(document_id, str(wanted["put_back"]))
            elif wanted.get("raises_limit"):
                shelf.raise_limit(document_id)
            else:
                changes = {key: wanted[key] for key in _CHANGES & set(wanted)}
                changes |= {
                    key: tuple(map(str, wanted[key])) for key in _CHANGES_LISTS & set(wanted)
                }
                if changes.get("extractor", EXTRACTORS[0]) not in EXTRACTORS:
                    raise InvalidSetting(f"The extractor must be one of {', '.join(EXTRACTORS)}.")
                shelf.reread(document_id, **changes)
        return Response(status_code=204)

    @router.put("/fit")
    async def fit(request: Request) -> Response:
        """Whether only the parts that match best are read when there is too much."""
        workspace.configure(fits_best_parts=bool(await request.json()))
        return Response(status_code=204)

    return router
