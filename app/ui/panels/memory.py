"""Memory: gauges of what is in use now, and a timeline of the run."""

from __future__ import annotations

from app.ui.component import markup

_KINDS = (
    ("weights", "Weights"),
    ("kv", "KV"),
    ("hidden", "Hidden states"),
    ("activations", "Activations"),
    ("rest", "This program"),
    ("others", "Other programs"),
)


def memory_panel() -> None:
    """`#gauge-device`, `#gauge-host` and `#timeline`, filled by `memory.js` and `timeline.js`."""
    markup("timeline", _TIMELINE)
    markup("gauge-device", _gauge("device", "GPU"))
    markup("gauge-host", _gauge("host", "This machine's memory"))


def _gauge(key: str, title: str) -> str:
    parts = "".join(f'<i class="{kind}"></i>' for kind, _ in _KINDS)
    rows = "".join(
        f'<span class="{kind}" hidden><i></i>{name} <b></b></span>' for kind, name in _KINDS
    )
    return f"""<section class="card gauge" data-key="{key}" aria-label="{title}"><div class="head">
<h2>{title}</h2><span class="title"></span></div><div class="bar" role="meter"
aria-label="{title} in use" aria-valuemin="0" aria-valuemax="100">{parts}<u title="peak"></u></div>
<dl class="now"><div><dt>now</dt><dd></dd></div><div><dt>peak</dt><dd></dd></div>
<div><dt>total</dt><dd></dd></div></dl><div class="kinds">{rows}</div>
<div class="disk"></div></section>"""


_TIMELINE = """<section class="card" aria-label="Memory during the run"><div class="head">
<h2>Memory during the run</h2><span class="tools"><button type="button" data-act="csv"
title="Save the numbers as CSV">CSV</button><button type="button" data-act="png"
title="Save the picture as PNG">PNG</button><button type="button" data-act="wide"
aria-pressed="false" title="Enlarge the chart">Enlarge</button></span></div>
<p class="none">Ask a question, and this chart will show the memory it uses.</p>
<div class="charts"></div><ul class="legend" aria-label="Legend"></ul>
<ul class="marks" aria-label="Where memory ran out and the run continued"></ul></section>
<dialog aria-label="Memory during the run"></dialog>"""
