"""What a tab is told of the workspace: everything small, as plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app import wording
from app.ui.views.documents import documents_view
from app.ui.views.run import citation_view, run_view
from app.workspace.conversations import Conversation
from app.workspace.run_view import AtWork, place_at
from mom_core.events import PrefillProgress

if TYPE_CHECKING:
    from app.workspace.workspace import Workspace


def tab_state(workspace: Workspace, chat_id: str | None = None) -> dict[str, object]:
    """Everything small that a tab shows, but for memory and the text of the answer.

    Args:
        workspace: what it looks at.
        chat_id: the conversation that it shows; the newest if None.
    """
    model, runs, conversations = workspace.model, workspace.runs, workspace.conversations
    with workspace.lock:
        chat = conversations.newest if chat_id is None else conversations.known(chat_id)
        job = runs.job(chat.id)
        is_busy = runs.is_busy(chat.id)
        position = runs.position(chat.id)
        return {
            "model": {
                "name": model.name,
                "status": model.status,
                "error": model.error,
                "is_ready": model.is_ready,
            },
            "documents": documents_view(
                workspace.documents.states(),
                model.engine.context_window_tokens if model.engine else None,
                workspace.documents.largest_parts,
                workspace.settings.fits_best_parts,
            ),
            "citations": _citations(workspace, chat),
            "run": {
                **run_view(runs.view(chat.id)),
                "is_busy": is_busy,
                "is_paused": is_busy and job is not None and job.is_paused,
                "is_held": is_busy and job is not None and job.is_held,
                "line": wording.in_line(position) if is_busy and position else "",
            },
            "chat": chat.id,
            "chats": [
                {"id": one.id, "name": one.name, "is_busy": runs.is_busy(one.id)}
                for one in conversations
            ],
            "turns": len(workspace.shown(chat)),
            "revision": chat.revision,
            "can_change_model": runs.is_idle,
        }


def _citations(workspace: Workspace, chat: Conversation) -> list[dict[str, object]]:
    """Those of the last answer, each with the place that a click on it opens."""
    last = chat.answered[-1].citations if chat.answered else ()
    each_once = {wording.citation(one): one for one in last}.values()
    return [citation_view(one, workspace.documents.place_of) for one in each_once]


def at_work(workspace: Workspace, chat_id: str) -> AtWork | None:
    """What a conversation's run is doing; None if none is on."""
    runs = workspace.runs
    job = runs.job(chat_id)
    if job is None or not runs.is_busy(chat_id):
        return None
    last = next(iter(job.events()[-1:]), None)
    reading = last if isinstance(last, PrefillProgress) else None
    view = runs.view(chat_id)
    place = place_at(workspace.reading_spans.get(chat_id, ()), view.at_tokens) if reading else ""
    position = runs.position(chat_id)
    status = wording.in_line(position) if position else view.status
    return AtWork(reading, place, status, job.is_paused)


def timeline_lines(workspace: Workspace) -> dict[str, object]:
    """Of the run on the timeline: limits, and what plain transformers would have needed."""
    sample, foreseen = workspace.model.memory(), workspace.last_foreseen
    return {
        "device_name": sample.device_name,
        "device_limit": (sample.device_total_bytes or 0) / 2**20,
        "host_limit": sample.host_total_bytes / 2**20,
        "standard": foreseen.standard_peak_bytes / 2**20 if foreseen else None,
    }
