"""Routes of conversations: begin, name, delete, export, ask anew, stop, pause."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from app.conversation import export
from app.refusals import refusals
from app.workspace import Workspace


def chat_routes(workspace: Workspace) -> APIRouter:
    """All of them, for one workspace."""
    router = APIRouter()

    @router.post("/chats")
    async def begin() -> Any:
        return {"id": workspace.new_conversation()}

    @router.put("/chats/{chat_id}/name")
    async def rename(chat_id: str, request: Request) -> Response:
        with refusals():
            workspace.rename(chat_id, str(await request.json()))
        return Response(status_code=204)

    @router.delete("/chats/{chat_id}")
    async def delete(chat_id: str) -> Response:
        with refusals():
            workspace.delete(chat_id)
        return Response(status_code=204)

    @router.get("/chats/{chat_id}/export")
    async def exported(chat_id: str) -> Response:
        with refusals():
            conversation = workspace.conversations.find(chat_id)
        name = quote(f"{conversation.name}.md", safe="")
        return Response(
            export(conversation),
            media_type="text/markdown; charset=utf-8",
            headers={"Content-Disposition": f"attachment; filename*=UTF-8''{name}"},
        )

    @router.post("/chats/{chat_id}/ask")
    async def ask(chat_id: str, request: Request) -> Response:
        """A question; with `turn` in the place of an earlier one, whose words it has if none."""
        wanted = await request.json()
        with refusals():
            question = wanted.get("question")
            if (turn := wanted.get("turn")) is None:
                workspace.ask(str(question or ""), chat_id)
            else:
                words = None if question is None else str(question)
                workspace.ask_again(int(turn), words, chat_id)
        return Response(status_code=204)

    @router.put("/chats/{chat_id}/run")
    async def control(chat_id: str, request: Request) -> Response:
        """What the run is to do: "stop", "pause" or "resume"."""
        match await request.json():
            case "stop":
                workspace.runs.stop(chat_id)
            case "pause":
                workspace.runs.pause(chat_id, is_paused=True)
            case "resume":
                workspace.runs.pause(chat_id, is_paused=False)
        return Response(status_code=204)

    @router.get("/chats/{chat_id}/turns/{turn}")
    async def turn_of(chat_id: str, turn: int) -> Any:
        """A question and its answer as they were written, for copying and editing."""
        with refusals():
            answered = workspace.answered_turn(chat_id, turn)
        return {"question": answered.turn.question, "answer": answered.turn.answer}

    @router.get("/chats/{chat_id}/turns/{turn}/citations/{number}")
    async def citation(chat_id: str, turn: int, number: int) -> Any:
        with refusals():
            return workspace.citation(chat_id, turn, number)

    return router
