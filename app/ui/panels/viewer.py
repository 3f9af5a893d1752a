"""A page or file beside the chat, with the place that is cited."""

from __future__ import annotations

from app.ui.component import markup


def viewer_panel() -> None:
    """`#viewer`, filled by `viewer.js`."""
    markup("viewer", "")
