"""Makes text safe to be shown as Markdown: no HTML of its own, no remote pictures.

Gradio's sanitiser stops scripts but lets pictures and positioned styles through. Inside code
nothing is changed, as an entity would be shown there letter by letter.
"""

from __future__ import annotations

import re

_CODE = re.compile(
    r"(?P<fence>^ {0,3}(?P<f>`{3,}|~{3,})[^\n]*\n(?:.*?\n)?? {0,3}(?P=f)[`~]*[ \t]*(?:\n|\Z))"
    r"|(?P<span>(?<!`)(?P<s>`+)(?!`)[^\n]*?(?<!`)(?P=s)(?!`))",
    re.MULTILINE | re.DOTALL,
)


def safe_markdown(text: str) -> str:
    """Text in which Markdown still works, but no HTML and no picture."""
    pieces = []
    end = 0
    for match in _CODE.finditer(text):
        pieces += [_escape(text[end : match.start()]), match[0]]
        end = match.end()
    pieces.append(_escape(text[end:]))
    return "".join(pieces)


def code_ranges(text: str) -> list[tuple[int, int]]:
    """Start and end of each code block and code span."""
    return [match.span() for match in _CODE.finditer(text)]


def plain_markdown(text: str) -> str:
    """Text shown as it was typed: no Markdown, no HTML."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!~|$:])", r"\\\1", text.replace("&", "&amp;")).replace(
        "<", "&lt;"
    )


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("![", "!\\[")
