"""The page: Gradio's components, and how clicks reach the workspace.

What changes many times a second (progress, the growing answer, the gauges, the documents) is
painted by `static/*.js` from one stream of small updates; Gradio carries what a person sends
and the finished conversation.
"""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from app.ui.component import markup
from app.ui.markdown import plain_markdown, safe_markdown
from app.ui.panels.documents import documents_panel
from app.ui.panels.forecast import forecast_panel
from app.ui.panels.memory import memory_panel
from app.ui.panels.token_map import token_map_panel
from app.ui.panels.viewer import viewer_panel
from app.ui.theme import theme
from app.workspace import OFFLOADS, Workspace
from mom_core.errors import MomError


def build(workspace: Workspace) -> gr.Blocks:
    """The page for one workspace."""
    with gr.Blocks(title="mom-chat", analytics_enabled=False) as demo:
        with gr.Column(elem_id="shell"):
            markup("top", _header(workspace.model_name))
            with gr.Column(elem_id="side"):
                documents_panel()
            with gr.Column(elem_id="mid"):
                token_map_panel()
                with gr.Column(elem_id="chat"):
                    history = gr.Chatbot(
                        elem_id="history",
                        show_label=False,
                        autoscroll=False,
                        height=None,
                        layout="bubble",
                        buttons=["copy"],
                        feedback_options=None,
                        latex_delimiters=[{"left": "$$", "right": "$$", "display": True}],
                        allow_tags=False,
                        placeholder=" ",
                    )
                    markup("live", _LIVE)
                markup("progress", _PROGRESS)
                with gr.Row(elem_id="ask"):
                    question = gr.Textbox(
                        elem_id="question",
                        show_label=False,
                        label="Question",
                        placeholder="Ask about the documents. Enter sends, Shift+Enter breaks.",
                        lines=1,
                        max_lines=6,
                        container=False,
                        scale=1,
                        max_length=200_000,
                    )
                    send = gr.Button("Send", elem_id="send", variant="primary", scale=0)
                    stop = gr.Button("Stop", elem_id="stop", scale=0)
            with gr.Column(elem_id="aside"):
                forecast_panel()
                with gr.Column(elem_id="memory"):
                    memory_panel()
                with gr.Column(elem_id="settings"):
                    offload = gr.Dropdown(
                        list(OFFLOADS),
                        value="auto",
                        label="Offload",
                        info="Where keys, values and hidden states are kept.",
                        elem_id="setting-offload",
                        interactive=True,
                    )
                    chunk = gr.Dropdown(
                        ["auto", "256", "512", "1024", "2048", "4096"],
                        value="auto",
                        label="Chunk size",
                        info="Tokens read at a time: auto or any number.",
                        allow_custom_value=True,
                        elem_id="setting-chunk",
                        interactive=True,
                    )
                    max_new_tokens = gr.Number(
                        512,
                        label="Longest answer (tokens)",
                        minimum=1,
                        precision=0,
                        elem_id="setting-max-new-tokens",
                        interactive=True,
                    )
                    temperature = gr.Slider(
                        0,
                        2,
                        value=0,
                        step=0.1,
                        label="Temperature",
                        info="0 always takes the likeliest word.",
                        elem_id="setting-temperature",
                        interactive=True,
                    )
                    fresh = gr.Button("New conversation", elem_id="new", size="sm")
            viewer_panel()
            refresh = gr.Button("Refresh", elem_id="refresh")

        def messages() -> list[dict[str, Any]]:
            return _messages(workspace)

        def on_send(text: str) -> Any:
            try:
                workspace.ask(text)
            except MomError as fault:
                gr.Warning(html.escape(str(fault)), duration=12)
                return gr.update()
            return ""

        def on_new() -> list[dict[str, Any]]:
            try:
                workspace.new_conversation()
            except MomError as fault:
                gr.Warning(html.escape(str(fault)))
            return messages()

        def on_setting(name: str) -> Any:
            def change(value: Any) -> None:
                try:
                    number = name == "max_new_tokens"
                    workspace.configure(**{name: int(value or 0) if number else value})
                except (MomError, ValueError) as fault:
                    gr.Warning(html.escape(str(fault)), duration=12)

            return change

        def on_load() -> tuple[Any, ...]:
            now = workspace.settings
            return messages(), now.offload, now.chunk, now.max_new_tokens, now.temperature

        # Only what goes through Gradio's queue can show a warning.
        spoken: dict[str, Any] = {
            "show_progress": "hidden",
            "api_visibility": "private",
            "concurrency_limit": None,
        }
        quick: dict[str, Any] = {
            "queue": False,
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        gr.on([send.click, question.submit], on_send, question, question, **spoken)
        stop.click(workspace.stop, None, None, **quick)
        fresh.click(on_new, None, history, **spoken)
        refresh.click(messages, None, history, **quick)
        offload.input(on_setting("offload"), offload, None, **spoken)
        chunk.input(on_setting("chunk"), chunk, None, **spoken)
        max_new_tokens.input(on_setting("max_new_tokens"), max_new_tokens, None, **spoken)
        temperature.input(on_setting("temperature"), temperature, None, **spoken)
        demo.load(on_load, None, [history, offload, chunk, max_new_tokens, temperature], **quick)
    return demo


def mount_options() -> dict[str, Any]:
    """How the page is mounted: no link to elsewhere, no history in the browser."""
    return {
        "theme": theme(),
        "head": (
            '<link rel="stylesheet" href="static/page.css">'
            '<link rel="stylesheet" href="static/documents.css">'
            '<link rel="stylesheet" href="static/memory.css">'
            '<script type="module" src="static/main.js"></script>'
        ),
        "footer_links": [],
        "run_history": False,
        "show_error": True,
    }


def _messages(workspace: Workspace) -> list[dict[str, Any]]:
    shown = []
    for question, answer, figures in workspace.answered():
        shown.append({"role": "user", "content": plain_markdown(question)})
        note = f'\n\n<span class="figures">{html.escape(figures)}</span>'
        shown.append({"role": "assistant", "content": safe_markdown(answer) + note})
    return shown


def _header(model_name: str) -> str:
    return (
        '<div class="brand"><h1>mom-chat</h1><span>the whole document, nothing cut</span></div>'
        f'<div class="model" role="status"><b>{html.escape(model_name)}</b> <span></span></div>'
    )


_LIVE = """<div class="welcome"><h2>Ask a whole document</h2>
<ol><li>Drop a PDF, a text, a .zip or a folder of code anywhere on this page.</li>
<li>See how many tokens it has, counted with the model's own tokenizer.</li>
<li>Ask. Every token is read before the answer begins; nothing leaves this machine.</li></ol></div>
<div class="asked" hidden></div><div class="answer" hidden></div>
<div class="citations" hidden><b>Where it comes from</b><ul></ul></div>"""

_PROGRESS = """<div class="bar"><i></i></div><div class="line"></div>
<div class="sr-only" aria-live="polite"></div>"""
