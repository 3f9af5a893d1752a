"""The forecast card: words and bars from figures, and forecasts made in their own time."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from app.forecast import Compared, Forecast, Forecaster, PromptParts, compare
from app.ui.forecast_view import forecast_view, meter_view
from mom_core.events import Finished
from mom_core.memory.outlook import Outlook
from mom_core.memory.strategy import Strategy

GIB = 2**30
PARTS = PromptParts(
    documents=412_000, conversation=380, answer_room=512, window=524_288, reused=398_112
)
GPU = Outlook(
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
    assert view["figures"] == [
        ["6 min 20 s", "to read"],
        ["0.4 s", "per token"],
        ["17.9 GiB", "GPU peak"],
    ]
    assert view["reuse"] == "398,112 of them are read already; 14,268 are new."
    device, host = view["bars"]
    assert device["text"] == "17.9 GiB of 24.0 GiB"
    assert device["standard_text"] == "plain transformers: 88.0 GiB, which does not fit"
    # All on one scale: what plain transformers needs is the longest.
    assert (device["standard"], device["limit"]) == (100.0, pytest.approx(27.27, abs=0.01))
    assert dict(device["parts"])["activations"] == pytest.approx(0.28, abs=0.01)
    assert (host["text"], host["standard"]) == ("51.0 GiB of 64.0 GiB", None)


def test_what_does_not_fit_says_so() -> None:
    misfit = replace(GPU, fits=False, sentence="It does not fit: 30 GiB are needed.", reason="")
    view = forecast_view("ready", Forecast(PARTS, misfit), None)
    assert (view["state"], view["sentence"]) == ("misfit", "It does not fit: 30 GiB are needed.")


@pytest.mark.parametrize(
    ("state", "words"),
    [("loading", "once the model is loaded"), ("counting", "being counted"), ("failed", "Choose")],
)
def test_before_there_is_a_forecast(state: Any, words: str) -> None:
    assert words in forecast_view(state, None, None)["sentence"]


def test_all_known_is_read_at_once_and_unknown_rates_are_left_out() -> None:
    known = replace(GPU, reused_tokens=412_380)
    assert forecast_view("ready", Forecast(PARTS, known), None)["figures"][0][0] == "at once"
    unknown = replace(GPU, read_seconds=None, token_seconds=None)
    assert len(forecast_view("ready", Forecast(PARTS, unknown), None)["figures"]) == 1


def test_the_meter_warns_before_it_is_full() -> None:
    assert meter_view(PARTS)["level"] == "high"
    assert meter_view(replace(PARTS, documents=1000))["level"] == ""
    full = meter_view(replace(PARTS, documents=524_000))
    assert full["level"] == "full"
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
        ["Each step of the answer", "0.4 s", "0.5 s"],
        ["Peak of the model", "17.8 GiB", "18.0 GiB"],
    ]


def test_forecasts_are_made_once_for_each_version_and_not_during_runs() -> None:
    made: list[str] = []
    now = {"version": 1, "is_idle": True}

    def make(chat_id: str) -> Forecast:
        made.append(chat_id)
        return Forecast(PARTS, GPU)

    forecaster = Forecaster(
        make, lambda: now["version"], lambda: bool(now["is_idle"]), lambda: None
    )
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

    forecaster = Forecaster(make, lambda: 1, lambda: True, lambda: None)
    try:
        assert forecaster.latest("a") is None
        assert calls.acquire(timeout=5)
        while not forecaster.is_current("a"):
            time.sleep(0.01)
        assert forecaster.latest("b") is None
        assert calls.acquire(timeout=5)
    finally:
        forecaster.close()
