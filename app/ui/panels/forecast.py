"""The forecast card: what a question will cost, before it is sent."""

from __future__ import annotations

from app.ui.component import markup


def forecast_panel() -> None:
    """`#forecast`, filled by `forecast.js`."""
    markup("forecast", _CARD)


_CARD = """<section class="card" aria-label="Forecast"><div class="top"><h2>Next question</h2>
</div><div class="work" hidden><div class="track"><i></i></div><p class="text"></p>
<p class="speed"></p></div><p class="headline"></p><div class="figures"></div>
<p class="change" role="status"></p><p class="reuse"></p><p class="sentence" role="status"></p>
<div class="bars"></div><p class="reason"></p>
<details class="compared" hidden open><summary>Last run: forecast and actual</summary><table>
<thead><tr><th></th><th scope="col">Forecast</th><th scope="col">Actual</th></tr></thead>
<tbody></tbody></table></details></section>"""
