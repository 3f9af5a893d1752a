"""What the page shows, as a pure function of what happened: events in, view out.

No clock, no engine, no Gradio. `RunView` is folded from a job's events; the `*_view` functions
turn state into the small JSON objects that the page's script paints. Their size depends on the
number of documents, never on the length of a document or an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from app import wording
from app.citations import Citation
from app.documents.options import DEFAULT_OPTIONS, ReadOptions
from app.workspace.jobs import Failed, JobEvent, Stopped
from mom_core.events import Adapted, Finished, MemorySample, PrefillProgress, Token

Phase = Literal["idle", "waiting", "reading", "answering"]


@dataclass(frozen=True, slots=True)
class RunView:
    """One run as far as it has come.

    Args:
        run_id: of the job; "" before the first.
        question: as asked.
        turn: its number in the conversation, from 0.
        phase: "idle" once it is over.
        text: the answer so far.
        answer_ids: its token ids.
        fraction: of the reading's work, 0..1.
        layer: being read, from 1; 0 while nothing is read.
        layers: L, of the model.
        at_tokens: how far into the prompt that layer has come.
        status: one line for people.
        figures: speed of the finished run, "" before.
        error: a sentence, "" if nothing went wrong.
    """

    run_id: str = ""
    question: str = ""
    turn: int = 0
    phase: Phase = "idle"
    text: str = ""
    answer_ids: tuple[int, ...] = ()
    fraction: float = 0.0
    layer: int = 0
    layers: int = 0
    at_tokens: int = 0
    status: str = ""
    figures: str = ""
    error: str = ""
    was_stopped: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and the number of its turn, from 0."""

    question: str
    turn: int


def waiting(run_id: str, asked: Asked) -> RunView:
    """A run that is in line."""
    return RunView(run_id, asked.question, asked.turn, phase="waiting", status=wording.WAITING)


def apply(view: RunView, event: JobEvent) -> RunView:
    """The view after one more event. Applying the same progress twice changes nothing."""
    match event:
        case PrefillProgress():
            return replace(
                view,
                phase="reading",
                fraction=event.fraction,
                layer=min(event.layer + 1, event.layers),
                layers=event.layers,
                at_tokens=_at_tokens(event),
                status=wording.reading(event),
            )
        case Adapted():
            return view
        case Token():
            return replace(
                view,
                phase="answering",
                fraction=1.0,
                layer=0,
                text=view.text + event.text,
                answer_ids=(*view.answer_ids, event.token_id),
                status=wording.answering(event.index + 1),
            )
        case Finished():
            figures = wording.figures(event)
            return replace(view, phase="idle", fraction=1.0, status=figures, figures=figures)
        case Stopped():
            return replace(view, phase="idle", was_stopped=True, status=wording.stopped(view.phase))
        case Failed():
            return replace(view, phase="idle", status="", error=event.sentence)


def _at_tokens(event: PrefillProgress) -> int:
    """Where in the prompt the current layer is."""
    layer_tokens = max(1, event.token_layers_total // max(1, event.layers))
    done = event.token_layers_done
    within = layer_tokens if done >= event.token_layers_total else done % layer_tokens
    return event.reused_tokens + within


def run_view(view: RunView) -> dict[str, Any]:
    """The run for the page; its text travels apart, piece by piece."""
    return {
        "id": view.run_id,
        "phase": view.phase,
        "percent": round(100 * view.fraction, 1),
        "status": view.status,
        "error": view.error,
        "question": view.question,
        "is_unanswered": view.was_stopped and not view.text,
        "layer": view.layer,
        "layers": view.layers,
        "at_tokens": view.at_tokens,
        # Its figures stand under the answer.
        "is_answered": bool(view.figures),
        "turn": view.turn,
    }


def citation_view(
    citation: Citation, place_of: Callable[[str, str], tuple[str, int] | None]
) -> dict[str, Any]:
    """A citation, and the place that a click on it opens."""
    return {
        "text": wording.citation(citation),
        "found": citation.found,
        "quote": citation.quote or "",
        "place": place_of(citation.document, citation.section),
    }


@dataclass(frozen=True, slots=True)
class DocumentState:
    """A dropped document.

    Args:
        id: names it to the server.
        name: names it to people.
        progress: pages or files read while it is read, of how many (0 until known).
        sections: "8 pages"; "" until read.
        tokens: in a prompt, of what is ticked; None until counted.
        receipt: the reading receipt; "" until counted.
        left_out: how many files and folders were not read.
        error: why it cannot be read, "" if it can.
        is_locked: a password would open it.
        can_raise: a limit stopped it, and may be raised.
        extractor: of a PDF; "" of anything else.
        is_folder: it holds files that patterns can choose from.
        unticked: how many sections the person left out.
        revision: grows whenever the sections or their tokens change.
        choice: grows whenever the ticks change.
        options: how it is read.
    """

    id: str
    name: str
    progress: tuple[int, int] = (0, 0)
    sections: str = ""
    tokens: int | None = None
    receipt: str = ""
    left_out: int = 0
    error: str = ""
    is_locked: bool = False
    can_raise: bool = False
    extractor: str = ""
    is_folder: bool = False
    unticked: int = 0
    revision: int = 0
    choice: int = 0
    options: ReadOptions = DEFAULT_OPTIONS


_LARGEST_NAMED = 3


def documents_view(
    documents: Sequence[DocumentState],
    context_window_tokens: int | None,
    largest_parts: Callable[[int], list[tuple[str, int]]] = lambda number: [],
    fits_best_parts: bool = False,
) -> dict[str, Any]:
    """The list of documents, each with its share of the context window.

    Args:
        documents: all.
        context_window_tokens: None until the model is known.
        largest_parts: names those that may be unticked; asked only when there is too much.
        fits_best_parts: whether the person has chosen the shortcut.
    """
    total = sum(document.tokens or 0 for document in documents)
    is_too_much = context_window_tokens is not None and total >= context_window_tokens
    rows = [
        {
            "id": document.id,
            "name": document.name,
            "facts": wording.document_facts(document, context_window_tokens),
            "progress": _progress(document),
            "receipt": document.receipt,
            "left_out": document.left_out,
            "is_locked": document.is_locked,
            "can_raise": document.can_raise,
            "extractor": document.extractor,
            "is_folder": document.is_folder,
            "has_parts": document.tokens is not None,
            "revision": document.revision,
            "choice": document.choice,
            "error": document.error,
            "drops_running_lines": document.options.drops_running_lines,
            "joins_hyphens": document.options.joins_hyphens,
            "include": list(document.options.include),
            "exclude": list(document.options.exclude),
        }
        for document in documents
    ]
    return {
        "rows": rows,
        "total": wording.total_tokens(total, context_window_tokens) if total else "",
        "advice": wording.too_much(largest_parts(_LARGEST_NAMED)) if is_too_much else "",
        "percent": _percent(total, context_window_tokens),
        "is_too_much": is_too_much,
        "fits_best_parts": fits_best_parts,
        "window_tokens": context_window_tokens,
    }


def _progress(document: DocumentState) -> float | None:
    """In percent while it is read, None before and after."""
    done, units = document.progress
    is_read = bool(document.sections or document.error)
    return None if is_read or not units else round(100 * done / units, 1)


def memory_view(sample: MemorySample) -> dict[str, Any]:
    """The gauges; none of the device where the model computes in this machine's memory."""
    return {"device": _device_gauge(sample), "host": _host_gauge(sample)}


def _device_gauge(sample: MemorySample) -> dict[str, Any] | None:
    total = sample.device_total_bytes
    if sample.device_name is None or not total:
        return None
    kinds = [
        ("weights", sample.device_weights_bytes),
        ("kv", sample.device_kv_bytes),
        ("hidden", sample.device_hidden_bytes),
        ("activations", sample.device_activations_bytes - sample.device_hidden_bytes),
        ("rest", sample.device_rest_bytes),
    ]
    used, peak = sample.device_used_bytes or 0, sample.device_peak_bytes or 0
    return _gauge(sample.device_name, kinds, used, peak, total)


def _host_gauge(sample: MemorySample) -> dict[str, Any]:
    total = sample.host_total_bytes
    others = max(0, total - sample.host_available_bytes - sample.host_used_bytes)
    kinds = [*_host_kinds(sample), ("others", others)]
    title = wording.NO_DEVICE if sample.device_name is None else ""
    used, peak = sample.host_used_bytes + others, sample.host_peak_bytes + others
    gauge = _gauge(title, kinds, used, peak, total)
    disk = sample.disk_used_bytes
    return {**gauge, "disk": wording.on_disk(disk) if disk else ""}


def _gauge(
    title: str, kinds: list[tuple[str, int]], used: int, peak: int, total: int
) -> dict[str, Any]:
    peak = max(used, peak)
    return {
        "title": title,
        "now": wording.size(used),
        "peak_text": wording.size(peak),
        "total": wording.size(total),
        "parts": _parts(kinds, total),
        "peak": _percent(peak, total),
    }


def _host_kinds(sample: MemorySample) -> list[tuple[str, int]]:
    return [
        ("weights", sample.host_weights_bytes),
        ("kv", sample.host_kv_bytes),
        ("hidden", sample.host_hidden_bytes),
        ("activations", sample.host_activations_bytes - sample.host_hidden_bytes),
        ("rest", sample.host_rest_bytes),
    ]


def _parts(kinds: list[tuple[str, int]], total: int) -> list[list[Any]]:
    return [[kind, _percent(size, total), wording.size(size)] for kind, size in kinds]


def _percent(part: int, whole: int | None) -> float:
    return round(100 * min(1.0, part / whole), 2) if whole else 0.0
