"""The one way our own HTML comes onto the page: fixed markup that scripts fill in with text.

No markup is ever made from what a person or a document says; that travels as JSON and is set as
text nodes by `static/*.js`.
"""

from __future__ import annotations

import html

import gradio as gr


def markup(elem_id: str, fixed: str) -> gr.HTML:
    """A block of fixed markup.

    Args:
        elem_id: its id on the page.
        fixed: HTML without anything from outside, or with it escaped by `text`.
    """
    return gr.HTML(fixed, elem_id=elem_id)


def text(words: str) -> str:
    """Words from outside, for use inside fixed markup."""
    return html.escape(words)
