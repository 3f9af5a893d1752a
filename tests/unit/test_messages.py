"""Finished answers as Markdown: safe, with citations as links and quotations stamped."""

from __future__ import annotations

from typing import Any

from app.citations import find_citations
from app.documents import Document, Section
from app.prompt.prompt import Turn
from app.ui.views.messages import messages
from app.workspace.conversations import Answered

DOCUMENT = Document(
    "a.pdf",
    "pdf",
    (Section("p. 1", "The keeper counts the frames in spring."), Section("p. 2", "Nothing.")),
)


def shown(answer: str, question: str = "Why?") -> list[dict[str, Any]]:
    citations = tuple(find_citations(answer, [DOCUMENT]))
    one = Answered(Turn(question, (1,), answer), "fast", "", citations, "m")
    return messages([one])


def test_marks_become_links_and_quotations_are_stamped() -> None:
    text = shown('It says "The keeper counts the frames" [p. 1] and more [p. 2] [p. 99].')[1][
        "content"
    ]
    assert '<a class="stamp found" href="#cite-0-0">found on p. 1</a>' in text
    assert '[<a class="cite found" href="#cite-0-0">p. 1</a>]' in text
    assert '[<a class="cite found" href="#cite-0-1">p. 2</a>]' in text
    assert '[<a class="cite missing" href="#cite-0-2">p. 99</a>]' in text
    missing = shown('It says "the moon is made of cheese".')[1]["content"]
    assert '<a class="stamp missing" href="#cite-0-0">not found in the documents</a>' in missing


def test_code_stays_as_it_is() -> None:
    text = shown('Use `x[p. 1]` and\n```\ny = "The keeper counts the frames" # [p. 1]\n```\n')
    assert "cite" not in text[1]["content"].split("figures")[0]
    assert "`x[p. 1]`" in text[1]["content"]


def test_nothing_that_was_written_becomes_markup() -> None:
    evil = '<img src=x onerror=alert(1)> ![p](http://192.0.2.1/a.png) "</a><script>alert(2) x y"'
    user, bot = shown(evil, question=evil)
    for content in (user["content"], bot["content"]):
        assert "<img" not in content
        assert "<script" not in content
        assert "![p]" not in content.replace("!\\[", "")


def test_private_characters_forge_no_links() -> None:
    forged = "a \ue000m0\ue001b\ue002 [p. 1]"
    content = shown(forged)[1]["content"]
    assert "cite" not in content.split("figures")[0]
    assert "\ue000" not in content


def test_tools_name_their_turn() -> None:
    user, bot = shown("An answer.")
    assert 'href="#edit-0"' in user["content"]
    assert 'href="#copy-0"' in bot["content"]
    assert 'href="#again-0"' in bot["content"]
