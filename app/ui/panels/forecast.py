"""What a question will cost, before it is sent."""

from __future__ import annotations

from app.ui.component import markup


def forecast_panel() -> None:
    """`#forecast`, filled by `forecast.js`."""
    markup("forecast", "")
