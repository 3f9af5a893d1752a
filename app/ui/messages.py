"""A conversation as Gradio's chat shows it: Markdown without HTML of its own, citations as links.

What a person or a document wrote is escaped; the links and stamps around it are ours, and the
page's script knows them by their addresses (`#cite-0-2`: answer 0, citation 2).
"""

from __future__ import annotations

import html
import re
from typing import Any

from app.citations import Citation
from app.conversation import Answered, Conversation
from app.ui import wording
from app.ui.markdown import code_ranges, plain_markdown, safe_markdown

# Private characters that no Markdown knows: they mark places while the text is made safe.
_OPEN, _CLOSE, _END = "\ue000", "\ue001", "\ue002"
_MARKED = re.compile(f"{_OPEN}(\\d+){_CLOSE}(.*?){_END}", re.DOTALL)
_PRIVATE = re.compile(f"[{_OPEN}{_CLOSE}{_END}]")


def messages(conversation: Conversation) -> list[dict[str, Any]]:
    """Two for each turn."""
    shown: list[dict[str, Any]] = []
    for turn, one in enumerate(conversation.answered):
        edit = _tools([(f"#edit-{turn}", wording.EDIT)])
        shown.append({"role": "user", "content": plain_markdown(one.turn.question) + edit})
        shown.append({"role": "assistant", "content": _answer(turn, one)})
    return shown


def _answer(turn: int, one: Answered) -> str:
    notice = f'\n\n<span class="notice">{html.escape(one.notice)}</span>' if one.notice else ""
    figures = f'\n\n<span class="figures">{html.escape(one.figures)}</span>'
    tools = _tools([(f"#copy-{turn}", wording.COPY), (f"#again-{turn}", wording.AGAIN)])
    return _with_citations(turn, one.turn.answer, one.citations) + notice + figures + tools


def _tools(links: list[tuple[str, str]]) -> str:
    anchors = " ".join(f'<a href="{address}">{name}</a>' for address, name in links)
    return f'\n\n<span class="tools">{anchors}</span>'


def _with_citations(turn: int, answer: str, citations: tuple[Citation, ...]) -> str:
    """The answer made safe, each citation a link to its place."""
    answer = _PRIVATE.sub("", answer)
    codes = code_ranges(answer)
    pieces, end = [], 0
    for number, one in sorted(enumerate(citations), key=lambda pair: pair[1].start_character):
        start, stop = one.start_character, one.end_character
        # Markdown inside a link breaks at the end of a line, and in code nothing is a link.
        is_in_code = any(start < code_end and stop > begin for begin, code_end in codes)
        if not end <= start < stop <= len(answer) or is_in_code or "\n\n" in answer[start:stop]:
            continue
        pieces += [answer[end:start], f"{_OPEN}{number}{_CLOSE}{answer[start:stop]}{_END}"]
        end = stop
    text = safe_markdown("".join([*pieces, answer[end:]]))
    return _MARKED.sub(lambda match: _link(turn, citations[int(match[1])], match), text)


def _link(turn: int, citation: Citation, match: re.Match[str]) -> str:
    number, words = int(match[1]), match[2]
    kind = "found" if citation.found else "missing"
    if not citation.quote:
        inner = words.replace("[", "\\[").replace("]", "\\]")
        return f'<a class="cite {kind}" href="#cite-{turn}-{number}">{inner}</a>'
    stamp = html.escape(wording.stamp(citation))
    link = f'<a class="stamp {kind}" href="#cite-{turn}-{number}">{stamp}</a>'
    return f"{words} {link}"
