"""The page's state is a pure function of events, and says true things."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from app import wording
from app.ui.views.documents import documents_view
from app.ui.views.markdown import plain_markdown, safe_markdown
from app.ui.views.memory import memory_view
from app.workspace.document_state import DocumentState
from app.workspace.jobs import Failed, Stopped
from app.workspace.run_view import Asked, RunView, apply, waiting
from mom_core.events import Finished, PrefillProgress, Token
from tests.unit.samples import GIB, sample


def progress(fraction: float, reused: int = 0) -> PrefillProgress:
    return PrefillProgress(
        prompt_tokens=4000,
        reused_tokens=reused,
        layer=11,
        layers=30,
        token_layers_done=1,
        token_layers_total=2,
        fraction=fraction,
        elapsed_seconds=2.0,
        eta_seconds=8.2,
    )


FINISHED = Finished(
    reason="stop",
    prompt_tokens=4000,
    reused_tokens=0,
    new_tokens=3,
    decode_steps=2,
    prefill_seconds=4.0,
    decode_seconds=0.5,
)


def fold(*events: object) -> RunView:
    view = waiting("r", Asked("What?", 0))
    for event in events:
        view = apply(view, event)  # type: ignore[arg-type]
    return view


def test_a_run_from_asking_to_its_figures() -> None:
    assert fold().phase == "waiting"
    reading = fold(progress(0.43))
    assert reading.phase == "reading"
    assert (
        reading.status == "Reading 4,000 tokens: 43%, layer 12 of 30, 860 tokens/s, about 8 s left"
    )
    assert apply(reading, progress(0.43)) == reading
    tokens = [Token(token_id=i, text=t, index=i) for i, t in enumerate(["It ", "is.", ""])]
    answering = fold(progress(1), *tokens)
    assert (answering.phase, answering.text) == ("answering", "It is.")
    assert answering.answer_ids == (0, 1, 2)
    done = apply(answering, FINISHED)
    assert done.phase == "idle"
    assert done.figures == (
        "First word after 4.0 s: read 4,000 tokens at 1,000 tokens/s. Wrote 3 at 4.0 tokens/s."
    )


def test_stopped_and_failed() -> None:
    assert fold(progress(0.5), Stopped()).status == (
        "Stopped while reading. Ask again to resume from there."
    )
    token = Token(token_id=1, text="a", index=0)
    assert fold(token, Stopped()).status == "Stopped. The answer so far is kept."
    failed = fold(Failed("No room."))
    assert (failed.phase, failed.error) == ("idle", "No room.")


def test_reused_tokens_are_told() -> None:
    assert "Reading 100 tokens (3,900 more reused)" in fold(progress(0, reused=3900)).status


def test_gauges_add_up() -> None:
    view = memory_view(sample(has_card=True))
    device, host = view["device"], view["host"]
    assert [device[key] for key in ("now", "peak_text", "total")] == [
        "6.00 GiB",
        "7.00 GiB",
        "24.00 GiB",
    ]
    assert sum(percent for _, percent, _ in device["parts"]) == pytest.approx(25, abs=0.05)
    # This program's 2 GiB and 2 GiB of others.
    assert (host["now"], host["peak_text"], host["total"]) == ("4.00 GiB", "5.00 GiB", "16.00 GiB")
    assert sum(percent for _, percent, _ in host["parts"]) == pytest.approx(25, abs=0.05)
    assert (host["title"], host["disk"]) == ("", "")


def test_without_a_card_one_gauge_tells_it_all() -> None:
    view = memory_view(replace(sample(has_card=False), disk_kv_bytes=GIB))
    assert view["device"] is None
    assert view["host"]["title"] == wording.NO_DEVICE
    assert view["host"]["disk"] == "1.00 GiB in files on disk"


def test_documents_view_stays_small() -> None:
    document = DocumentState(
        "1", "a", sections="9,000 files", tokens=12_345, receipt="receipt", left_out=10_000
    )
    documents = [document]
    view = documents_view(documents, 400_000)
    row = view["rows"][0]
    assert row["facts"] == "9,000 files · 12,345 tokens · 3% of the context"
    assert row["left_out"] == 10_000
    assert row["progress"] is None
    assert len(json.dumps(view)) < 1000
    state = DocumentState("1", "a", sections="1 page", tokens=9000)
    full = documents_view([state], 8192, lambda number: [("p. 1 of a", 9000)])
    assert full["is_too_much"]
    assert ": 809 too many for this model." in full["total"]
    assert "The largest: p. 1 of a (9,000 tokens)." in full["advice"]


def test_a_document_tells_how_far_its_reading_is() -> None:
    known = DocumentState("1", "a", progress=(120, 2415))
    (row,) = documents_view([known], None)["rows"]
    assert row["progress"] == 5.0
    assert row["facts"] == "reading … 120 of 2,415"
    (row,) = documents_view([DocumentState("1", "a")], None)["rows"]
    assert row["progress"] is None
    assert row["facts"] == "reading …"


def test_durations() -> None:
    assert [wording.duration(s) for s in (0.4, 59, 200, 7500)] == [
        "0 s",
        "59 s",
        "3 min 20 s",
        "2 h 5 min",
    ]


def test_markdown_lets_no_html_and_no_picture_through() -> None:
    text = "<img src=x onerror=y> ![p](http://a/b.png) **bold** `a<b` [l](http://x)"
    safe = safe_markdown(text)
    assert "<img" not in safe
    assert "![" not in safe
    assert "**bold**" in safe
    assert "`a<b`" in safe
    fence = "```html\n<b>&amp;</b>\n```\n"
    assert safe_markdown(fence + "<i>") == fence + "&lt;i>"
    assert safe_markdown("``` <script>") == "``` &lt;script>"
    assert "<" not in plain_markdown("<b>*x*")
