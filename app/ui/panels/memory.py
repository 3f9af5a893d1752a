"""The gauges of memory."""

from __future__ import annotations

from app.ui.component import markup

_KINDS = (
    ("weights", "Weights"),
    ("kv", "KV"),
    ("activations", "Activations"),
    ("rest", "Rest"),
    ("others", "Other programs"),
)


def memory_panel() -> None:
    """`#gauge-device` and `#gauge-host`, filled by `memory.js`."""
    markup("gauge-device", _gauge("device", "Device"))
    markup("gauge-host", _gauge("host", "Host"))


def _gauge(key: str, title: str) -> str:
    parts = "".join(f'<i class="{kind}"></i>' for kind, _ in _KINDS)
    rows = "".join(
        f'<span class="{kind}" hidden><i></i>{name} <b></b></span>' for kind, name in _KINDS
    )
    return f"""<div class="gauge" data-key="{key}"><div class="head"><b>{title}</b>
<span class="title"></span></div><div class="bar" role="meter" aria-label="{title} memory"
aria-valuemin="0" aria-valuemax="100">{parts}<u></u></div><div class="text"></div>
<div class="kinds">{rows}</div></div>"""
