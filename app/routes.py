"""Our own routes beside Gradio's: uploads, documents, and one stream of updates per tab."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from app.documents import EXTRACTORS
from app.documents.folder import MANIFEST
from app.shelf import Source
from app.ui import view_state, wording
from app.workspace import Workspace
from mom_core.errors import DocumentError, InvalidSetting, MomError

STATIC = Path(__file__).parent / "ui" / "static"

_TICK_SECONDS = 0.08
_MEMORY_EVERY_TICKS = 5
_IDLE_MEMORY_EVERY_TICKS = 12
_BATCH_ID = re.compile(r"[0-9a-f]{32}")
_PATH_CHARACTERS = 1024
# Reading has limits of its own; these only keep a drop from filling the disk.
_FILES_MAX = 200_000
_BATCH_BYTES_MAX = 16 * 1024**3
# More than a browser shows in one piece without trouble.
_SHOWN_CHARACTERS = 1_000_000
_CHANGES = frozenset({"password", "extractor", "drops_running_lines", "joins_hyphens"})
_CHANGES_LISTS = frozenset({"include", "exclude"})


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

    @router.post("/documents")
    async def open_here(request: Request) -> Response:
        """Opens a path of this machine without copying it."""
        path = Path(str((await request.json()).get("path", "")).strip()).expanduser()
        if not path.is_absolute():
            raise HTTPException(400, f"{str(path)[:80]!r} is no full path, such as /home/me/a.pdf.")
        if not path.exists():
            raise HTTPException(400, f"There is nothing at {str(path)[:200]}. Check the path.")
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
    async def parts(document_id: str) -> Any:
        with _refusals():
            return [asdict(part) for part in shelf.parts(document_id)]

    @router.get("/documents/{document_id}/parts/{number}")
    async def text(document_id: str, number: int) -> Any:
        with _refusals():
            section = shelf.section(document_id, number)
        doubt = wording.doubts(section.health, bool(section.text.strip()))
        if len(section.text) > _SHOWN_CHARACTERS:
            doubt = f"{doubt} The first {_SHOWN_CHARACTERS:,} characters are shown.".strip()
        return {"label": section.label, "text": section.text[:_SHOWN_CHARACTERS], "doubt": doubt}

    @router.get("/documents/{document_id}/find")
    def find(document_id: str, words: str) -> Any:
        with _refusals():
            return shelf.find(document_id, words)

    @router.put("/documents/{document_id}/choice")
    async def choose(document_id: str, request: Request) -> Response:
        wanted = await request.json()
        with _refusals():
            if "pages" in wanted:
                shelf.choose_pages(document_id, str(wanted["pages"]))
            else:
                shelf.choose(document_id, [int(number) for number in wanted["unticked"]])
        return Response(status_code=204)

    @router.put("/documents/{document_id}/options")
    async def reread(document_id: str, request: Request) -> Response:
        """Reads anew: with a password, another extractor, or something put back."""
        wanted = await request.json()
        with _refusals():
            if "put_back" in wanted:
                shelf.put_back(document_id, str(wanted["put_back"]))
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

    @router.get("/events")
    async def events() -> StreamingResponse:
        return StreamingResponse(
            _updates(workspace, is_closing),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store"},
        )

    @router.get("/static/{name}")
    async def static(name: str) -> FileResponse:
        if name not in {"page.js", "documents.js", "page.css"}:
            raise HTTPException(404, f"There is no file {name!r} here.")
        return FileResponse(STATIC / name, headers={"Cache-Control": "no-cache"})

    return router


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """What a person did wrong is a sentence; anything else that is malformed is a refusal too."""
    try:
        yield
    except MomError as fault:
        raise HTTPException(400, str(fault)) from fault
    except (KeyError, TypeError, ValueError) as fault:
        raise HTTPException(400, f"The request cannot be understood: {fault}.") from fault


async def _updates(workspace: Workspace, is_closing: Callable[[], bool]) -> AsyncIterator[str]:
    """State when it changed, new text of the answer, and memory, at most 12.5 times a second."""
    version, run_id, sent, tick = -1, "", 0, 0
    memory_tick = -_IDLE_MEMORY_EVERY_TICKS
    is_busy = False
    while not is_closing():
        changed = workspace.version
        if changed != version:
            version = changed
            # The text first: whoever sees a run end has all of its answer.
            run = workspace.run()
            state = workspace.state()
            is_busy = bool(state["run"]["is_busy"])  # type: ignore[index]
            if run.run_id != run_id:
                run_id, sent = run.run_id, 0
                yield _event("text", {"run": run_id, "start": 0, "text": ""})
            if len(run.text) > sent:
                yield _event("text", {"run": run_id, "start": sent, "text": run.text[sent:]})
                sent = len(run.text)
            yield _event("state", state)
        every = _MEMORY_EVERY_TICKS if is_busy else _IDLE_MEMORY_EVERY_TICKS
        if tick >= memory_tick + every:
            memory_tick = tick
            yield _event("memory", view_state.memory_view(workspace.memory()))
        tick += 1
        await asyncio.sleep(_TICK_SECONDS)


def _event(kind: str, data: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
