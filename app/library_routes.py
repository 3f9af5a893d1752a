"""Routes of the library: what is prepared, names, forgetting, the quota."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from app.library import Library
from app.refusals import refusals
from app.ui import wording
from app.workspace import Workspace
from mom_core.errors import InvalidSetting


def library_routes(workspace: Workspace) -> APIRouter:
    """All of them, for one workspace."""
    router = APIRouter()

    def library() -> Library:
        if workspace.library is None:
            raise InvalidSetting(wording.NOTHING_KEPT)
        return workspace.library

    @router.get("/library")
    def prepared() -> Any:
        """Entries, the last used first, and what they take of the quota."""
        kept = workspace.library
        if kept is None:
            return {"entries": [], "text": wording.NOTHING_KEPT}
        quota = kept.quota()
        return {
            "entries": [
                {
                    "id": entry.id,
                    "name": entry.name,
                    "facts": entry.problem
                    or wording.prepared(entry.model, entry.tokens, entry.size_bytes),
                    "is_bad": bool(entry.problem),
                }
                for entry in kept.list()
            ],
            "text": wording.quota(quota.used_bytes, quota.limit_bytes),
        }

    @router.delete("/library/{entry_id}")
    def forget(entry_id: str) -> Response:
        with refusals():
            library().forget(entry_id)
        return Response(status_code=204)

    @router.put("/library/{entry_id}/name")
    async def rename(entry_id: str, request: Request) -> Response:
        with refusals():
            library().rename(entry_id, str(await request.json()))
        return Response(status_code=204)

    return router
