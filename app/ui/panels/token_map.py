"""A strip per document with a cell per page or file."""

from __future__ import annotations

from app.ui.component import markup


def token_map_panel() -> None:
    """`#map`, filled by `token_map.js`."""
    markup("map", "")
