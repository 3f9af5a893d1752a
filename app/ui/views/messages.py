"""A conversation as Gradio's chat shows it: Markdown without HTML of its own, citations as links.

What a person or a document wrote is escaped; the links and stamps around it are ours, and the
page's script knows them by their addresses (`#cite-0-2`: answer 0, citation 2).
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from typing import Any

from app import wording
from app.citations import Citation
from app.ui.views.markdown import code_ranges, plain_markdown, safe_markdown
from app.workspace.conversations import Answered

# Private characters that no Markdown knows: they mark places while the text is made safe.
_OPEN, _CLOSE, _END = "\ue000", "\ue001", "\ue002"
_MARKED = re.compile(f"{_OPEN}([mq])(\\d+){_CLOSE}(.*?){_END}", re.DOTALL)
_PRIVATE = re.compile(f"[{_OPEN}{_CLOSE}{_END}]")


def messages(answered: Sequence[Answered]) -> list[dict[str, Any]]:
    """Two for each turn."""
    shown: list[dict[str, Any]] = []
    for turn, one in enumerate(answered):
        edit = "\n\n" + _tools([(f"#edit-{turn}", wording.EDIT)])
        shown.append({"role": "user", "content": plain_markdown(one.turn.question) + edit})
        shown.append({"role": "assistant", "content": _answer(turn, one)})
    return shown


def _answer(turn: int, one: Answered) -> str:
    notice = f'<span class="notice">{html.escape(one.notice)}</span>' if one.notice else ""
    figures = f'<span class="figures">{html.escape(one.figures)}</span>'
    tools = _tools([(f"#copy-{turn}", wording.COPY), (f"#again-{turn}", wording.AGAIN)])
    answer = _with_citations(turn, one.turn.answer, one.citations)
    return f"{answer}\n\n{notice}{figures}{tools}"


def _tools(links: list[tuple[str, str]]) -> str:
    anchors = " ".join(f'<a href="{address}">{name}</a>' for address, name in links)
    return f'<span class="tools">{anchors}</span>'


def _with_citations(turn: int, answer: str, citations: tuple[Citation, ...]) -> str:
    """The answer made safe, each citation a link to its place."""
    if _PRIVATE.search(answer):
        # Characters that no font shows; without them the places of citations would be others.
        return safe_markdown(_PRIVATE.sub("", answer))
    codes = code_ranges(answer)
    pieces, end = [], 0
    for start, stop, sign in sorted(_places(citations)):
        # In code nothing is a link, and no link reaches over the end of a paragraph.
        is_in_code = any(start < code_end and stop > begin for begin, code_end in codes)
        if not end <= start < stop <= len(answer) or is_in_code or "\n\n" in answer[start:stop]:
            continue
        pieces += [answer[end:start], f"{_OPEN}{sign}{_CLOSE}{answer[start:stop]}{_END}"]
        end = stop
    text = safe_markdown("".join([*pieces, answer[end:]]))
    return _MARKED.sub(lambda match: _link(turn, citations[int(match[2])], match), text)


def _places(citations: tuple[Citation, ...]) -> Iterator[tuple[int, int, str]]:
    """Start and end of what is to be marked, and how: "m" a mark, "q" a quotation."""
    for number, one in enumerate(citations):
        kind = "m" if one.quote is None else "q"
        yield one.start_character, one.end_character, f"{kind}{number}"
        if one.mark_start_character is not None and one.mark_end_character is not None:
            yield one.mark_start_character, one.mark_end_character, f"m{number}"


def _link(turn: int, citation: Citation, match: re.Match[str]) -> str:
    words, kind = match[3], "found" if citation.found else "missing"
    address = f'href="#cite-{turn}-{match[2]}"'
    if match[1] == "m":
        return f'<a class="cite {kind}" {address}>{words}</a>'
    stamp = html.escape(wording.stamp(citation))
    return f'{words} <a class="stamp {kind}" {address}>{stamp}</a>'
