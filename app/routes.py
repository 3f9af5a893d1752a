"""Our own routes beside Gradio's: uploads, documents, and one stream of updates per tab."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from app.chat_routes import chat_routes
from app.document_routes import document_routes
from app.documents.folder import MANIFEST
from app.model_choices import model_choices
from app.shelf import Source
from app.stream import updates
from app.workspace import Workspace
from mom_core.errors import DocumentError

STATIC = Path(__file__).parent / "ui" / "static"
SAMPLES = Path(__file__).parents[1] / "assets" / "samples"
_STATIC_NAMES = frozenset(path.name for path in STATIC.iterdir() if path.suffix in {".js", ".css"})

_BATCH_ID = re.compile(r"[0-9a-f]{32}")
_PATH_CHARACTERS = 1024
# Reading has limits of its own; these only keep a drop from filling the disk.
_FILES_MAX = 200_000
_BATCH_BYTES_MAX = 16 * 1024**3


def sample_documents() -> dict[str, Path]:
    """Documents that lie beside the program's source, by name; none where it is installed alone."""
    if not SAMPLES.is_dir():
        return {}
    return {path.name: path for path in SAMPLES.iterdir() if path.name != "README.md"}


class Uploads:
    """Files on their way in: each dropped thing is a batch, its files stored under numbers.

    A name from outside is data, never a path on this machine.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: dict[str, list[tuple[str, Path]]] = {}
        self._bytes: dict[str, int] = {}

    def place(self, batch: str, path: str) -> Path:
        """Where the next file of a batch is stored.

        Raises:
            DocumentError: the path's form, or too many files.
        """
        if not _BATCH_ID.fullmatch(batch):
            raise DocumentError("The upload has no proper number; drop the file again.")
        parts = path.split("/")
        if (
            not path
            or len(path) > _PATH_CHARACTERS
            or any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in parts)
        ):
            raise DocumentError(f"{path[:80]!r} is not a name that a dropped file can have.")
        files = self._paths.setdefault(batch, [])
        if len(files) >= _FILES_MAX:
            raise DocumentError(
                f"The folder holds more than {_FILES_MAX:,} files. Drop a part of it."
            )
        folder = self._folder / batch
        folder.mkdir(exist_ok=True)
        place = folder / str(len(files))
        files.append((path, place))
        return place

    def count(self, batch: str, size_bytes: int) -> None:
        """Raises `DocumentError` when a batch grows too large."""
        self._bytes[batch] = self._bytes.get(batch, 0) + size_bytes
        if self._bytes[batch] > _BATCH_BYTES_MAX:
            raise DocumentError(
                f"More than {_BATCH_BYTES_MAX // 1024**3} GiB were dropped at once. "
                "Drop the part that you want to ask about."
            )

    def forget(self, batch: str) -> None:
        """Drops a batch that did not arrive whole."""
        self._bytes.pop(batch, None)
        if self._paths.pop(batch, None) is not None:
            shutil.rmtree(self._folder / batch, ignore_errors=True)

    def finish(self, batch: str) -> Source:
        """What has arrived whole.

        Raises:
            DocumentError: nothing was uploaded.
        """
        files = self._paths.pop(batch, [])
        self._bytes.pop(batch, None)
        if not files:
            raise DocumentError("Nothing arrived; drop the file again.")
        first_path, first_place = files[0]
        if len(files) == 1 and "/" not in first_path:
            return Source(first_place, first_path)
        name = first_path.split("/", 1)[0]
        names = [path.removeprefix(name + "/") for path, _ in files]
        folder = self._folder / batch
        (folder / MANIFEST).write_text(json.dumps(names), "utf-8")
        return Source(folder, name, is_upload=True)


def routes(workspace: Workspace, is_closing: Callable[[], bool]) -> APIRouter:
    """All of them.

    Args:
        workspace: what they show and change.
        is_closing: ends the streams when the server shuts down.
    """
    router = APIRouter()
    uploads = Uploads(workspace.folder)
    shelf = workspace.shelf

    @router.put("/uploads/{batch}")
    async def upload(batch: str, path: str, request: Request) -> Response:
        try:
            place = uploads.place(batch, path)
        except DocumentError as fault:
            # The other files of the batch may be as they should.
            raise HTTPException(400, str(fault)) from fault
        try:
            with place.open("wb") as file:
                async for block in request.stream():
                    uploads.count(batch, len(block))
                    file.write(block)
        except DocumentError as fault:
            uploads.forget(batch)
            raise HTTPException(400, str(fault)) from fault
        except OSError as fault:
            uploads.forget(batch)
            sentence = f"The file could not be stored: {fault.strerror}. Free some disk space."
            raise HTTPException(507, sentence) from fault
        return Response(status_code=204)

    @router.post("/uploads/{batch}")
    async def uploaded(batch: str) -> Response:
        try:
            source = uploads.finish(batch)
        except DocumentError as fault:
            raise HTTPException(400, str(fault)) from fault
        shelf.add(batch, source)
        return Response(status_code=204)

    router.include_router(document_routes(workspace))
    router.include_router(chat_routes(workspace))

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
        shelf.add(uuid.uuid4().hex, Source(path, name))
        return Response(status_code=204)

    @router.get("/static/{name}")
    async def static(name: str) -> FileResponse:
        if name not in _STATIC_NAMES:
            raise HTTPException(404, f"There is no file {name!r} here.")
        return FileResponse(STATIC / name, headers={"Cache-Control": "no-cache"})

    return router
