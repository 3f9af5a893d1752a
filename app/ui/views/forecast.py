"""The forecast card and the meter as small JSON, from a forecast: figures in, words out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from app import wording
from app.workspace.forecasts import Compared, Forecast, PromptParts
from app.workspace.run_view import AtWork
from mom_core.forecast.forecast import RunForecast
from mom_core.sizes import size_text

_AT_ONCE_SECONDS = 0.1
# A prompt of fewer tokens is a question without documents or conversation.
_BARE_TOKENS = 64
# Of the window: from here on it is shown as high, and as nearly full.
_HIGH_PERCENT, _FULL_PERCENT = 75, 90
CardState = Literal["loading", "failed", "counting", "ready", "misfit"]


def forecast_view(
    state: CardState,
    forecast: Forecast | None,
    compared: Compared | None,
    model_error: str = "",
    *,
    before: Forecast | None = None,
) -> dict[str, Any]:
    """All that the card shows.

    Args:
        state: why there may be no forecast.
        forecast: the next question's.
        compared: the last run's forecast and what came of it.
        model_error: why there is no model.
        before: the forecast until the last change; None if there was none.
    """
    if forecast is None or state in ("loading", "failed", "counting"):
        words = {
            "loading": wording.FORECAST_LOADING,
            "failed": f"{model_error} {wording.FORECAST_FAILED}".strip(),
        }.get(state, wording.FORECAST_COUNTING)
        return {"state": state, "sentence": words, "compared": _compared(compared)}
    run_forecast, parts = forecast.run_forecast, forecast.parts
    is_too_long = parts.sent > parts.window
    sentence, has_nothing = "", bool(forecast.longest_tokens)
    if is_too_long:
        sentence = wording.beyond_window(parts.sent, parts.window, forecast.model_name)
    elif not run_forecast.fits:
        sentence = run_forecast.sentence
    elif parts.fitted is not None:
        sentence = wording.fitted(parts.prompt, parts.fitted, forecast.model_name)
    elif has_nothing:
        sentence = wording.reach(forecast.longest_tokens, parts.window, forecast.model_name)
    return {
        "state": "misfit" if is_too_long or not run_forecast.fits else "ready",
        "headline": (
            wording.NOTHING_DROPPED
            if has_nothing and parts.prompt < _BARE_TOKENS
            else wording.forecast_tokens(parts.sent, is_most=parts.fitted is not None)
        ),
        "figures": _figures(run_forecast),
        "reuse": wording.reuse(parts.reused, parts.sent - parts.reused),
        "change": "" if before is None else change(before, forecast),
        "sentence": sentence,
        "reason": wording.chosen(
            run_forecast.reason, on_cpu=run_forecast.device_peak_bytes is None
        ),
        "bars": _bars(run_forecast),
        "meter": meter_view(parts),
        "compared": _compared(compared),
    }


def change(before: Forecast, after: Forecast) -> str:
    """What the last change costs or saves, and what it leaves of what was read; "" if nothing."""
    tokens = after.parts.sent - before.parts.sent
    was, now = before.run_forecast, after.run_forecast
    if not tokens and was.strategy == now.strategy:
        return ""
    is_timed = was.read_seconds is not None and now.read_seconds is not None
    lost = before.parts.reused - after.parts.reused
    return wording.changed(
        tokens,
        now.read_seconds - was.read_seconds if is_timed else None,  # type: ignore[operator]
        _peak(now) - _peak(was),
        (after.parts.reused, before.parts.reused) if lost > 0 else None,
    )


def work_view(work: AtWork | None) -> dict[str, Any] | None:
    """The line of a run that is on; None if none is."""
    if work is None:
        return None
    event = work.reading
    if event is None:
        return {"text": work.status, "place": "", "percent": None, "speed": "", "left": None}
    passes = max(1, event.layers)
    done = event.token_layers_done / passes / max(event.elapsed_seconds, 1e-3)
    return {
        "text": wording.at_layer(event, work.place),
        "place": work.place,
        "percent": round(100 * event.fraction, 1),
        "speed": wording.speed(done),
        "left": None if work.is_paused or not event.eta_seconds else round(event.eta_seconds),
    }


def _peak(run_forecast: RunForecast) -> int:
    """Where the model computes."""
    peak = run_forecast.device_peak_bytes
    return run_forecast.host_peak_bytes if peak is None else peak


def meter_view(parts: PromptParts) -> dict[str, Any]:
    """The context window by what of it is sent, in percent and words.

    Where only the best parts are read they fill the window, which is then no reason for alarm.
    """
    sent, documents = parts.sent - parts.conversation, f"{parts.documents:,}"
    used_percent = 100 * (parts.sent + parts.answer_room) / parts.window
    level = (
        "full" if used_percent >= _FULL_PERCENT else "high" if used_percent >= _HIGH_PERCENT else ""
    )
    if parts.fitted is not None:
        documents, level = wording.most_of(sent, parts.documents), ""
    return {
        "parts": [
            [name, round(100 * tokens / parts.window, 2), text]
            for name, tokens, text in (
                ("documents", sent, documents),
                ("conversation", parts.conversation, f"{parts.conversation:,}"),
                ("answer", parts.answer_room, f"{parts.answer_room:,}"),
            )
        ],
        "level": level,
    }


def _figures(run_forecast: RunForecast) -> list[list[str]]:
    """Value and name of each large figure."""
    figures = []
    if run_forecast.read_seconds is not None:
        is_known = run_forecast.prompt_tokens == run_forecast.reused_tokens
        is_soon = is_known or run_forecast.read_seconds < _AT_ONCE_SECONDS
        value = "at once" if is_soon else wording.reading_time(run_forecast.read_seconds)
        figures.append([value, "to read"])
    if run_forecast.token_seconds is not None:
        figures.append([wording.token_time(run_forecast.token_seconds), "per token"])
    has_gpu = run_forecast.device_peak_bytes is not None
    figures.append([size_text(_peak(run_forecast)), "GPU peak" if has_gpu else "memory peak"])
    return figures


def _bars(run_forecast: RunForecast) -> list[dict[str, Any]]:
    """A bar for each tier that is used, with what plain transformers would take beside it."""
    tiers: list[tuple[str, str, int, int]] = []
    if run_forecast.device_peak_bytes is not None and run_forecast.device_total_bytes is not None:
        tiers.append(
            ("device", "GPU", run_forecast.device_peak_bytes, run_forecast.device_total_bytes)
        )
    tiers.append(("host", "Memory", run_forecast.host_peak_bytes, run_forecast.host_total_bytes))
    bars = []
    for index, (tier, name, peak, total) in enumerate(tiers):
        # Plain transformers keeps all where the model computes: that is the first tier.
        standard = run_forecast.standard_peak_bytes if index == 0 else 0
        scale = max(peak, total, standard, 1)
        kinds = _kinds(run_forecast.by_kind["device" if tier == "device" else "host"])
        bars.append(
            {
                "name": name,
                "text": wording.memory_of(peak, total),
                "parts": [[kind, round(100 * size / scale, 2)] for kind, size in kinds.items()],
                "made_of": wording.made_of(list(kinds.items())),
                "limit": round(100 * total / scale, 2),
                "standard": round(100 * standard / scale, 2) if standard else None,
                "standard_text": (
                    wording.standard_needs(standard, fits=run_forecast.standard_fits)
                    if standard
                    else ""
                ),
                "is_over": peak > total,
            }
        )
    if run_forecast.disk_peak_bytes:
        text = size_text(run_forecast.disk_peak_bytes)
        bars.append({"name": "Disk", "text": text, "parts": [], "limit": None, "standard": None})
    return bars


def _kinds(terms: Mapping[str, int]) -> dict[str, int]:
    """The forecast's many terms in the few kinds that the page shows."""
    kinds = dict.fromkeys(("weights", "kv", "hidden", "activations"), 0)
    for term, size in terms.items():
        if term == "weights":
            kinds["weights"] += size
        elif term in ("KV", "states"):
            kinds["kv"] += size
        elif "hidden" in term:
            kinds["hidden"] += size
        else:
            kinds["activations"] += size
    return kinds


def _compared(compared: Compared | None) -> list[list[str]]:
    """Rows of name, forecast and real."""
    if compared is None:
        return []
    rows = []
    forecast, real = compared.read_seconds
    if compared.read_tokens:
        foreseen = "–" if forecast is None else wording.reading_time(forecast)
        rows.append(["Reading", foreseen, wording.reading_time(real)])
    foreseen_token, real_token = compared.token_seconds
    if real_token is not None:
        foreseen = "–" if foreseen_token is None else wording.token_time(foreseen_token)
        rows.append(["Each token of the answer", foreseen, wording.token_time(real_token)])
    rows.append(["Peak of the model", *map(size_text, compared.peak_bytes)])
    return rows
