"""The forecast card: words and bars from figures, and forecasts made in their own time."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from app.prompt.prompt import Span
from app.server.updates.feeds import ForecastFeed, WorkFeed
from app.ui.views.forecast import change, forecast_view, meter_view, work_view
from app.workspace.forecasts import Compared, Forecast, Forecaster, PromptParts, compare
from app.workspace.run_view import AtWork, place_at
from mom_core.events import Finished, PrefillProgress
from mom_core.forecast.forecast import RunForecast
from mom_core.strategy import Strategy

GIB = 2**30
PARTS = PromptParts(
    documents=412_000, conversation=380, answer_room=512, window=524_288, reused=398_112
)
GPU = RunForecast(
    fits=True,
    sentence="",
    reason="KV goes to the host, as the GPU has no room for it",
    strategy=Strategy.named("layer-streaming"),
    prompt_tokens=412_380,
    reused_tokens=398_112,
    read_seconds=380.0,
    token_seconds=0.41,
    device_peak_bytes=round(17.9 * GIB),
    device_total_bytes=24 * GIB,
    host_peak_bytes=51 * GIB,
    host_total_bytes=64 * GIB,
    disk_peak_bytes=0,
    by_kind={
        "device": {"weights": 15 * GIB, "KV": 2 * GIB, "hidden states": GIB // 2, "norm": GIB // 4},
        "host": {"KV": 51 * GIB},
        "disk": {},
    },
    standard_peak_bytes=88 * GIB,
    standard_fits=False,
)


def test_the_card_of_a_gpu() -> None:
    view = forecast_view("ready", Forecast(PARTS, GPU), None)
    assert view["state"] == "ready"
    assert view["headline"] == "412,380 tokens"
    assert "no GPU" not in view["reason"]
    assert view["figures"] == [
        ["6 min 20 s", "to read"],
        ["0.4 s", "per token"],
        ["17.9 GiB", "GPU peak"],
    ]
    assert view["reuse"] == "398,112 of them can be reused; 14,268 are new."
    device, host = view["bars"]
    assert device["text"] == "17.9 GiB of 24.0 GiB"
    assert device["standard_text"] == "plain transformers: 88.0 GiB (would not fit)"
    # All on one scale: what plain transformers needs is the longest.
    assert (device["standard"], device["limit"]) == (100.0, pytest.approx(27.27, abs=0.01))
    assert device["made_of"] == (
        "weights 15.0 GiB · KV 2.0 GiB · hidden states 512 MiB · activations 256 MiB"
    )
    assert dict(device["parts"])["activations"] == pytest.approx(0.28, abs=0.01)
    assert (host["text"], host["standard"]) == ("51.0 GiB of 64.0 GiB", None)


def test_what_does_not_fit_says_so() -> None:
    misfit = replace(GPU, fits=False, sentence="It does not fit: 30 GiB are needed.", reason="")
    view = forecast_view("ready", Forecast(PARTS, misfit), None)
    assert (view["state"], view["sentence"]) == ("misfit", "It does not fit: 30 GiB are needed.")


@pytest.mark.parametrize(
    ("state", "words"),
    [("loading", "once the model is loaded"), ("counting", "Counting"), ("failed", "Choose")],
)
def test_before_there_is_a_forecast(state: Any, words: str) -> None:
    assert words in forecast_view(state, None, None)["sentence"]


def test_all_known_is_read_at_once_and_unknown_rates_are_left_out() -> None:
    known = replace(GPU, reused_tokens=412_380)
    assert forecast_view("ready", Forecast(PARTS, known), None)["figures"][0][0] == "at once"
    unknown = replace(GPU, read_seconds=None, token_seconds=None)
    assert len(forecast_view("ready", Forecast(PARTS, unknown), None)["figures"]) == 1


def test_without_a_gpu_the_card_says_who_computes() -> None:
    cpu = replace(
        GPU,
        device_peak_bytes=None,
        device_total_bytes=None,
        by_kind={"host": {"weights": 15 * GIB, "KV": 36 * GIB}, "disk": {}},
    )
    view = forecast_view("ready", Forecast(PARTS, cpu), None)
    assert view["reason"].startswith("There is no GPU here, so the CPU does the work. Chosen: ")
    assert view["figures"][2] == ["51.0 GiB", "memory peak"]
    assert [bar["name"] for bar in view["bars"]] == ["Memory"]


def test_before_anything_is_dropped_the_card_says_what_could_be() -> None:
    bare = PromptParts(documents=0, conversation=20, answer_room=512, window=524_288, reused=0)
    found = replace(GPU, prompt_tokens=20, reused_tokens=0)
    some = Forecast(bare, found, longest_tokens=231_000, model_name="llama")
    view = forecast_view("ready", some, None)
    assert view["headline"] == "No documents yet"
    assert view["sentence"] == (
        "On this machine, llama can read up to 231,000 of the 524,288 tokens in its context."
    )
    all_of_it = forecast_view("ready", replace(some, longest_tokens=524_288), None)
    assert all_of_it["sentence"].endswith("can use its whole context of 524,288 tokens.")


def test_more_than_the_window_is_said_before_the_question() -> None:
    over = Forecast(replace(PARTS, documents=524_000), GPU, model_name="llama")
    view = forecast_view("ready", over, None)
    assert view["state"] == "misfit"
    assert "92 tokens over llama's limit of 524,288. Untick some parts." in view["sentence"]


def test_where_only_the_best_parts_are_sent_the_price_is_theirs() -> None:
    parts = replace(PARTS, documents=900_000, reused=0, fitted=523_776)
    view = forecast_view("ready", Forecast(parts, GPU, model_name="llama"), None)
    assert view["state"] == "ready"
    assert view["headline"] == "Up to 523,776 tokens"
    assert view["sentence"].startswith("Everything together is 900,380 tokens, too many for llama")
    assert "up to 523,776 tokens. The figures here are for that many." in view["sentence"]
    # Without documents it would still be too long: no part that is left out helps.
    long = replace(parts, conversation=600_000, fitted=600_000)
    assert forecast_view("ready", Forecast(long, GPU), None)["state"] == "misfit"


def test_a_change_tells_its_price_and_what_stays_read() -> None:
    before = Forecast(PARTS, GPU)
    parts = replace(PARTS, documents=400_000, reused=120_000)
    forecast_run = replace(GPU, read_seconds=440.0, device_peak_bytes=round(17.4 * GIB))
    view = forecast_view("ready", Forecast(parts, forecast_run), None, before=before)
    assert view["change"] == (
        "This change: \u221212,000 tokens, +1 min 0 s, \u2212512 MiB. "
        "120,000 of the 398,112 tokens already read can be reused; the rest come after your change."
    )
    assert change(before, Forecast(PARTS, GPU)) == ""
    other = replace(GPU, strategy=replace(GPU.strategy, chunk_tokens=512), read_seconds=400.0)
    assert change(before, Forecast(PARTS, other)) == "This change: +20 s."
    unknown = Forecast(parts, replace(forecast_run, read_seconds=None))
    assert " min" not in change(before, unknown)


def test_the_line_of_a_run_names_layer_page_speed_and_time_left() -> None:
    spans = [Span(10, 200, "a.pdf", "p. 1"), Span(200, 300, "a.pdf", "p. 2")]
    assert [place_at(spans, at) for at in (0, 10, 199, 200, 5000)] == [
        "",
        "p. 1 of a.pdf",
        "p. 1 of a.pdf",
        "p. 2 of a.pdf",
        "p. 2 of a.pdf",
    ]
    assert place_at([Span(0, 9, "a.md", "a.md")], 3) == "a.md"
    event = PrefillProgress(
        prompt_tokens=400,
        reused_tokens=0,
        layer=11,
        layers=32,
        token_layers_done=32 * 100,
        token_layers_total=32 * 400,
        fraction=0.25,
        elapsed_seconds=2.0,
        eta_seconds=6.0,
    )
    work = AtWork(event, "p. 2 of a.pdf", "", False)
    assert work_view(work) == {
        "text": "Reading layer 12 of 32, p. 2 of a.pdf",
        "place": "p. 2 of a.pdf",
        "percent": 25.0,
        "speed": "50 tokens/s",
        "left": 6,
    }
    paused, waits = replace(work, is_paused=True), AtWork(None, "", "Waiting in line", False)
    assert work_view(paused)["left"] is None  # type: ignore[index]
    assert work_view(waits)["text"] == "Waiting in line"  # type: ignore[index]
    assert work_view(None) is None


def test_the_meter_warns_before_it_is_full() -> None:
    assert meter_view(PARTS)["level"] == "high"
    assert meter_view(replace(PARTS, documents=1000))["level"] == ""
    full = meter_view(replace(PARTS, documents=524_000))
    assert full["level"] == "full"
    # What is over the window is not sent where only the best parts are: no alarm.
    best = meter_view(replace(PARTS, documents=900_000, fitted=523_000))
    assert best["level"] == ""
    assert best["parts"][0][2] == f"up to {523_000 - PARTS.conversation:,} of 900,000"
    assert full["parts"][2] == ["answer", 0.1, "512"]


def test_forecast_and_real_side_by_side() -> None:
    finished = Finished(
        reason="stop",
        prompt_tokens=412_380,
        reused_tokens=398_112,
        new_tokens=11,
        decode_steps=10,
        prefill_seconds=400.0,
        decode_seconds=5.0,
    )
    compared = compare(GPU, finished, 18 * GIB)
    assert compared == Compared(
        read_seconds=(380.0, 400.0),
        token_seconds=(0.41, 0.5),
        peak_bytes=(round(17.75 * GIB), 18 * GIB),
        read_tokens=14_268,
    )
    rows = forecast_view("ready", Forecast(PARTS, GPU), compared)["compared"]
    assert rows == [
        ["Reading", "6 min 20 s", "6 min 40 s"],
        ["Each token of the answer", "0.4 s", "0.5 s"],
        ["Peak of the model", "17.8 GiB", "18.0 GiB"],
    ]


def test_forecasts_are_made_once_for_each_version_and_not_during_runs() -> None:
    made: list[str] = []
    now = {"version": 1, "is_idle": True}

    def make(chat_id: str) -> Forecast:
        made.append(chat_id)
        return Forecast(PARTS, GPU)

    forecaster = Forecaster(make, lambda: now["version"], lambda: bool(now["is_idle"]))
    try:
        while forecaster.latest("a") is None:
            time.sleep(0.01)
        for _ in range(50):
            forecaster.latest("a")
        assert made == ["a"]
        now.update(version=2, is_idle=False)
        assert forecaster.latest("a") is not None
        assert not forecaster.is_current("a")
        time.sleep(0.3)
        assert made == ["a"]
        now["is_idle"] = True
        while not forecaster.is_current("a"):
            forecaster.latest("a")
            time.sleep(0.01)
        assert made == ["a", "a"]
    finally:
        forecaster.close()


def test_a_forecast_that_fails_ends_nothing() -> None:
    calls = threading.Semaphore(0)

    def make(chat_id: str) -> Forecast:
        calls.release()
        raise RuntimeError("odd")

    forecaster = Forecaster(make, lambda: 1, lambda: True)
    try:
        assert forecaster.latest("a") is None
        assert calls.acquire(timeout=300)
        while not forecaster.is_current("a"):
            time.sleep(0.01)
        assert forecaster.latest("b") is None
        assert calls.acquire(timeout=300)
    finally:
        forecaster.close()


def test_accepted_drafts_count_as_tokens_and_an_answer_of_one_token_as_none() -> None:
    finished = Finished(
        reason="stop",
        prompt_tokens=10,
        reused_tokens=0,
        new_tokens=41,
        decode_steps=5,
        prefill_seconds=1.0,
        decode_seconds=4.0,
    )
    assert compare(GPU, finished, GIB).token_seconds == (0.41, 0.1)
    one = replace(finished, new_tokens=1, decode_steps=0, decode_seconds=0.0)
    assert compare(GPU, one, GIB).token_seconds == (0.41, None)


def test_a_persons_change_has_a_price_and_a_run_has_none() -> None:
    now = SimpleNamespace(forecast=Forecast(PARTS, GPU), is_current=True, is_busy=False)
    workspace: Any = SimpleNamespace(
        forecaster=SimpleNamespace(
            latest=lambda chat: now.forecast, is_current=lambda chat: now.is_current
        ),
        runs=SimpleNamespace(is_busy=lambda chat: now.is_busy),
        documents=SimpleNamespace(is_preparing=False),
        compared={},
        model=SimpleNamespace(error="", is_ready=True),
    )
    feed = ForecastFeed(workspace, "a")

    def told() -> str:
        return str([view["change"] for _, view in feed.poll()][-1])

    assert told() == ""
    now.forecast = Forecast(replace(PARTS, documents=400_000), GPU)
    assert "12,000 tokens" in told()
    # A run: for a moment after it the forecast from before it is still there.
    now.is_busy, now.is_current = True, False
    assert told() == ""
    now.is_busy = False
    assert list(feed.poll()) == []
    now.is_current, now.forecast = True, Forecast(replace(PARTS, conversation=900), GPU)
    assert told() == ""


def test_a_tab_that_comes_back_hears_that_nothing_runs_any_more() -> None:
    workspace: Any = SimpleNamespace(runs=SimpleNamespace(job=lambda chat: None))
    feed = WorkFeed(workspace, "a")
    assert list(feed.poll()) == [("work", None)]
    assert [news for _ in range(20) for news in feed.poll()] == []
