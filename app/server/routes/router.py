"""Our own routes beside Gradio's: uploads, documents, and one stream of updates per tab."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from starlette.requests import ClientDisconnect

from app.server.routes.chats import chat_routes
from app.server.routes.documents import document_routes
from app.server.routes.library import library_routes
from app.server.routes.refusals import Route
from app.server.updates.stream import updates
from app.workspace.listed_document import Source
from app.workspace.model_choices import model_choices
from app.workspace.uploads import Uploads
from app.workspace.workspace import Workspace
from mom_core.errors import DocumentError

STATIC = Path(__file__).parents[2] / "ui" / "static"
SAMPLES = Path(__file__).parents[3] / "assets" / "samples"
_STATIC_FILES = {path.name: path for path in STATIC.iterdir() if path.suffix in {".js", ".css"}}
_STREAMS_AT_ONCE = 8


def sample_documents() -> dict[str, Path]:
    """Documents that lie beside the program's source, by name; none where it is installed alone."""
    if not SAMPLES.is_dir():
        return {}
    return {path.name: path for path in SAMPLES.iterdir() if path.name != "README.md"}


def routes(workspace: Workspace, is_closing: Callable[[], bool]) -> APIRouter:
    """All of them.

    Args:
        workspace: what they show and change.
        is_closing: ends the streams when the server shuts down.
    """
    router = APIRouter(route_class=Route)
    uploads = Uploads(workspace.folder)
    # More at once would only make each of them slower.
    streams = asyncio.Semaphore(_STREAMS_AT_ONCE)
    documents = workspace.documents

    @router.put("/uploads/{batch}")
    async def upload(batch: str, path: str, request: Request) -> Response:
        # One that is refused here leaves the other files of the batch as they are.
        place = uploads.place(batch, path)
        try:
            async with streams:
                with place.open("wb") as file:
                    async for block in request.stream():
                        uploads.count(batch, len(block))
                        file.write(block)
        except ClientDisconnect as fault:
            # A tab was closed, or a network broke: half a file is no document.
            uploads.forget(batch)
            raise HTTPException(400, "The upload broke off; drop it again.") from fault
        except DocumentError:
            uploads.forget(batch)
            raise
        except OSError as fault:
            uploads.forget(batch)
            sentence = f"The file could not be stored: {fault.strerror}. Free some disk space."
            raise HTTPException(507, sentence) from fault
        return Response(status_code=204)

    @router.post("/uploads/{batch}")
    async def uploaded(batch: str) -> Response:
        documents.add(batch, uploads.finish(batch))
        return Response(status_code=204)

    router.include_router(document_routes(workspace))
    router.include_router(chat_routes(workspace))
    router.include_router(library_routes(workspace))

    @router.get("/events")
    async def events(chat: str = "") -> StreamingResponse:
        return StreamingResponse(
            updates(workspace, workspace.conversations.known(chat).id, is_closing),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store"},
        )

    @router.get("/models")
    def models() -> Any:
        """The catalogue, with what each reads on this machine."""
        try:
            return [asdict(choice) for choice in model_choices()]
        except OSError as fault:
            raise HTTPException(503, str(fault)) from fault

    @router.get("/samples")
    async def samples() -> list[str]:
        """Names of documents that come with the program."""
        return sorted(sample_documents())

    @router.post("/samples/{name}")
    async def open_sample(name: str) -> Response:
        path = sample_documents().get(name)
        if path is None:
            raise HTTPException(404, f"There is no sample {name[:80]!r}.")
        documents.add(uuid.uuid4().hex, Source(path, name))
        return Response(status_code=204)

    @router.get("/static/{name}")
    async def static(name: str) -> FileResponse:
        if name not in _STATIC_FILES:
            raise HTTPException(404, f"There is no file {name!r} here.")
        return FileResponse(_STATIC_FILES[name], headers={"Cache-Control": "no-cache"})

    return router
