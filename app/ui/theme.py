"""Colours and fonts of the page: the machine's own fonts, nothing fetched."""

from __future__ import annotations

import gradio as gr


def theme() -> gr.themes.Base:
    """A quiet theme with a blue dark enough for white text."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.blue,
        neutral_hue=gr.themes.colors.slate,
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
        radius_size=gr.themes.sizes.radius_md,
    ).set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_text_color="white",
        block_border_width="0px",
        # Gradio's own is too pale to be read by all.
        block_info_text_color="*neutral_500",
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
    )
