"""Routes of conversations: begin, name, delete, export, ask anew, stop, pause."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Body, Response

from app.server.routes.refusals import Route, Text, Wanted
from app.ui.views.run import citation_view
from app.workspace.conversations import export
from app.workspace.workspace import Workspace


class Question(Wanted):
    """A question; with `turn` in the place of an earlier one, whose words it has if none."""

    question: Text | None = None
    turn: int | None = None


def chat_routes(workspace: Workspace) -> APIRouter:
    """All of them, for one workspace."""
    router = APIRouter(route_class=Route)

    @router.post("/chats")
    async def begin() -> Any:
        return {"id": workspace.new_conversation()}

    @router.put("/chats/{chat_id}/name")
    async def rename(chat_id: str, name: Annotated[Text, Body()]) -> Response:
        workspace.rename(chat_id, name)
        return Response(status_code=204)

    @router.delete("/chats/{chat_id}")
    async def delete(chat_id: str) -> Response:
        workspace.delete(chat_id)
        return Response(status_code=204)

    @router.get("/chats/{chat_id}/export")
    async def exported(chat_id: str) -> Response:
        conversation = workspace.conversations.find(chat_id)
        name = quote(f"{conversation.name}.md", safe="")
        return Response(
            export(conversation),
            media_type="text/markdown; charset=utf-8",
            headers={"Content-Disposition": f"attachment; filename*=UTF-8''{name}"},
        )

    @router.post("/chats/{chat_id}/ask")
    async def ask(chat_id: str, wanted: Question) -> Response:
        workspace.ask(wanted.question, chat_id, wanted.turn)
        return Response(status_code=204)

    @router.put("/chats/{chat_id}/run")
    async def control(
        chat_id: str, what: Annotated[Literal["stop", "pause", "resume"], Body()]
    ) -> Response:
        """What the run is to do."""
        if what == "stop":
            workspace.runs.stop(chat_id)
        else:
            workspace.runs.pause(chat_id, is_paused=what == "pause")
        return Response(status_code=204)

    @router.post("/chats/{chat_id}/watch")
    async def watch(chat_id: str) -> Response:
        """A hidden tab, which has no stream, says that it is still there."""
        workspace.runs.watch(chat_id)
        return Response(status_code=204)

    @router.get("/chats/{chat_id}/turns/{turn}")
    async def turn_of(chat_id: str, turn: int) -> Any:
        """A question and its answer as they were written, for copying and editing."""
        answered = workspace.answered_turn(chat_id, turn)
        return {"question": answered.turn.question, "answer": answered.turn.answer}

    @router.get("/chats/{chat_id}/turns/{turn}/citations/{number}")
    async def citation(chat_id: str, turn: int, number: int) -> Any:
        return citation_view(
            workspace.citation(chat_id, turn, number), workspace.documents.place_of
        )

    return router
