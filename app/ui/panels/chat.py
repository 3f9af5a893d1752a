"""The chat: the list of chats, finished turns, the running answer, the question box."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.ui.component import markup
from app.ui.views.messages import messages
from app.workspace.workspace import Workspace

_QUICK: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "api_visibility": "private",
}


def chats_panel() -> None:
    """`#chats`, filled by `chats.js`."""
    markup("chats", _CHATS)


def chat_panel(workspace: Workspace) -> None:
    """`#chat`, `#progress` and `#ask`, filled by `chat.js`."""
    with gr.Column(elem_id="chat"):
        history = gr.Chatbot(
            elem_id="history",
            show_label=False,
            autoscroll=False,
            height=None,
            layout="bubble",
            buttons=[],
            feedback_options=None,
            latex_delimiters=[{"left": "$$", "right": "$$", "display": True}],
            allow_tags=False,
            placeholder=" ",
        )
        markup("live", _LIVE)
    markup("progress", _PROGRESS)
    with gr.Row(elem_id="ask"):
        gr.Textbox(
            elem_id="question",
            show_label=False,
            label="Question",
            placeholder="Ask about your documents",
            lines=1,
            max_lines=6,
            container=False,
            scale=1,
            max_length=200_000,
        )
        markup("controls", _CONTROLS)
    # Holds the id of the chat that this tab shows; the page's script fills it in.
    chat_id = gr.Textbox(visible=False)
    refresh = gr.Button("Refresh", elem_id="refresh")
    refresh.click(
        lambda name: messages(workspace.shown(workspace.conversations.known(name))),
        chat_id,
        history,
        js="() => [document.documentElement.dataset.chat ?? '']",
        **_QUICK,
    )


_CHATS = """<div class="head"><h2>Chats</h2><button type="button" id="new" title="New chat"
aria-label="New chat">+ New</button></div><ul class="list"></ul>"""

_LIVE = """<div class="welcome"><h2>Ask a whole document</h2>
<ol><li>Drop a PDF, a text file, a .zip or a code folder anywhere on this page.</li>
<li>See how many tokens it has, and what reading it will cost on this machine.</li>
<li>Ask. The model reads every token before it answers; nothing leaves this machine.</li></ol>
<div class="samples" hidden><span>No document at hand? Try a sample:</span></div>
<div class="starters" hidden></div></div>
<div class="asked" hidden></div><div class="answer prose" hidden></div>
<div class="failed" role="alert" hidden><p></p><button type="button">Ask again</button></div>
<div class="citations" hidden><b>Where it comes from</b><ul></ul></div>"""

_PROGRESS = """<div class="bar" role="progressbar" aria-label="Reading" aria-valuemin="0"
aria-valuemax="100"><i></i></div><div class="line"></div>
<div class="note" role="status"></div><div class="sr-only" aria-live="polite"></div>"""

_CONTROLS = """<button type="button" id="pause" hidden>Pause</button>
<button type="button" id="stop" disabled>Stop</button>
<button type="button" id="send">Send</button>"""
