"""The page: its layout, and the options that Gradio needs to show it.

What changes many times a second (progress, the growing answer, the gauges, the documents) is
painted by `static/*.js` from one stream of small updates, and what a person does there goes to
our own routes. Gradio draws the layout, the settings and the finished conversation.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.ui.component import markup, text
from app.ui.panels.chat import chat_panel, chats_panel
from app.ui.panels.documents import documents_panel
from app.ui.panels.forecast import forecast_panel
from app.ui.panels.memory import memory_panel
from app.ui.panels.settings import settings_panel
from app.ui.panels.token_map import token_map_panel
from app.ui.panels.viewer import viewer_panel
from app.ui.theme import theme
from app.workspace.workspace import Workspace

_STYLES = (
    "page.css",
    "chat.css",
    "documents.css",
    "tree.css",
    "viewer.css",
    "memory.css",
    "forecast.css",
    "timeline.css",
)


def build(workspace: Workspace) -> gr.Blocks:
    """The page for one workspace."""
    with gr.Blocks(title="mom-chat", analytics_enabled=False) as demo:
        with gr.Column(elem_id="shell"):
            markup("top", _header(workspace.model.name))
            with gr.Column(elem_id="side"):
                documents_panel()
                chats_panel()
            with gr.Column(elem_id="mid"):
                token_map_panel()
                chat_panel(workspace)
            with gr.Column(elem_id="aside"):
                forecast_panel()
                markup("aside-tabs", _ASIDE_TABS)
                with gr.Column(elem_id="memory"):
                    memory_panel()
                components, values = settings_panel(workspace)
            viewer_panel()
            markup("tabs", _TABS)
        demo.load(
            values,
            None,
            components,
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
    return demo


def mount_options() -> dict[str, Any]:
    """How the page is mounted: no link to elsewhere, no history in the browser."""
    styles = "".join(f'<link rel="stylesheet" href="static/{name}">' for name in _STYLES)
    return {
        "theme": theme(),
        "head": f'{styles}<script type="module" src="static/main.js"></script>',
        "footer_links": [],
        "run_history": False,
        "show_error": True,
    }


def _header(model_name: str) -> str:
    return (
        '<div class="brand"><h1>mom-chat</h1><span>the whole document, nothing cut</span></div>'
        '<button type="button" class="model" title="Change the model" role="status">'
        f"<b>{text(model_name)}</b> <span></span></button>"
    )


_ASIDE_TABS = """<div role="tablist" aria-label="Beside the chat">
<button type="button" role="tab" data-aside="memory" aria-selected="true">Memory</button>
<button type="button" role="tab" data-aside="settings" aria-selected="false">Settings</button>
</div>"""

# On phones: one part of the page at a time.
_TABS = """<nav aria-label="Parts of the page">
<button type="button" data-tab="chat" aria-current="true">Chat</button>
<button type="button" data-tab="documents">Documents</button>
<button type="button" data-tab="memory">Memory</button>
<button type="button" data-tab="settings">Settings</button></nav>"""
