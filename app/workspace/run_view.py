"""A run as it stands: a value folded from its events."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from app import wording
from app.prompt.prompt import Span
from app.workspace.jobs import Failed, JobEvent, Stopped
from mom_core.events import Adapted, Finished, PrefillProgress, Token

RunPhase = Literal["idle", "waiting", "reading", "answering"]


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
    phase: RunPhase = "idle"
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


@dataclass(frozen=True, slots=True)
class AtWork:
    """A run that is on.

    Args:
        reading: how far it has read; None while it waits or answers.
        place: being read, "p. 12 of contract.pdf"; "" if there is no document.
        status: one line for people.
        is_paused: whether a person lets it wait.
    """

    reading: PrefillProgress | None
    place: str
    status: str
    is_paused: bool


def place_at(spans: Sequence[Span], token: int) -> str:
    """The part of a document that a token of the prompt is in; "" before the first.

    Args:
        spans: of the prompt, in order.
        token: its position.
    """
    index = bisect.bisect_right(spans, token, key=lambda span: span.start) - 1
    if index < 0:
        return ""
    span = spans[index]
    return span.document if span.label == span.document else f"{span.label} of {span.document}"
