"""Glyphs that stand for no known character."""

from __future__ import annotations

import re

# The replacement character, private use areas, and control characters, which fonts without a
# table of characters fall back to. U+FFFE is PDFium's hyphen, not a fault.
_UNDECODABLE = re.compile("[\ufffd\ue000-\uf8ff\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def undecodable(text: str) -> int:
    """How many characters of `text` are none."""
    return len(_UNDECODABLE.findall(text))
