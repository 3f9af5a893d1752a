"""The token map: one strip per document, one cell per page or file."""

from __future__ import annotations

from app.ui.component import markup


def token_map_panel() -> None:
    """`#map`, filled by `token_map.js`."""
    markup("map", _MAP)


_MAP = """<div class="strips"></div><div class="foot"><span class="legend" aria-hidden="true">
<i class="waiting"></i>waiting <i class="read"></i>read <i class="without"></i>without text
<i class="out"></i>left out <i class="cited"></i>cited</span><span class="tip"></span></div>"""
