"""Routes of the library: what is prepared, names, forgetting, the quota."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Response

from app import wording
from app.library.library import Library
from app.server.routes.refusals import Route, Text, Wanted
from app.workspace.workspace import Workspace
from mom_core.errors import InvalidSetting
from mom_core.sizes import parse_quota, size_text


class WantedQuota(Wanted):
    """What the library may take, as people write sizes, and whether entries may go for it."""

    size: Text
    may_delete: bool = False


def library_routes(workspace: Workspace) -> APIRouter:
    """All of them, for one workspace."""
    router = APIRouter(route_class=Route)

    def library() -> Library:
        if workspace.library is None:
            raise InvalidSetting(wording.NOTHING_KEPT)
        if not workspace.library.folder.is_dir():
            raise InvalidSetting(wording.library_is_gone(workspace.library.folder))
        return workspace.library

    @router.get("/library")
    def prepared() -> Any:
        """Entries, the last used first, and what they take of the quota."""
        try:
            kept = library()
        except InvalidSetting as fault:
            return {"entries": [], "text": str(fault), "limit": None}
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
            "limit": size_text(quota.limit_bytes) if quota.limit_bytes else "0",
        }

    @router.put("/library/quota")
    def change_quota(wanted: WantedQuota) -> Any:
        """Sets what the library may take; where entries would go for that, asks back first."""
        limit_bytes = parse_quota(wanted.size)
        gone = library().beyond(limit_bytes)
        if gone and not wanted.may_delete:
            size_bytes = sum(entry.size_bytes for entry in gone)
            return {"question": wording.less_kept(len(gone), size_bytes)}
        library().set_quota(limit_bytes)
        return {"question": ""}

    @router.delete("/library/{entry_id}")
    def forget(entry_id: str) -> Response:
        library().forget(entry_id)
        return Response(status_code=204)

    @router.put("/library/{entry_id}/name")
    def rename(entry_id: str, name: Annotated[Text, Body()]) -> Response:
        library().rename(entry_id, name)
        return Response(status_code=204)

    return router
