"""The settings: each applies from the next question on, and the forecast shows its effect."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import gradio as gr

from app.ui.component import markup
from app.workspace.settings import OFFLOADS, PRESETS, Settings
from app.workspace.workspace import Workspace
from mom_core.errors import MomError

# Only events in Gradio's queue can show a warning.
SPOKEN: dict[str, Any] = {
    "show_progress": "hidden",
    "api_visibility": "private",
    "concurrency_limit": None,
}
_WARNING_SECONDS = 12


def settings_panel(workspace: Workspace) -> tuple[list[Any], Callable[[], list[Any]]]:
    """Builds `#settings`.

    Args:
        workspace: what the settings change.

    Returns:
        The components, and a function that gives the values in force.
    """
    now = Settings()
    with gr.Column(elem_id="settings"):
        markup("models", _MODELS)
        markup("library", _LIBRARY)
        with gr.Row(elem_id="setting-model-row"):
            model = gr.Textbox(
                label="Model",
                info="smollm2-135m, a model hub id, a folder, or a .gguf file.",
                elem_id="setting-model",
                max_lines=1,
            )
            window = gr.Number(
                0,
                label="Context tokens",
                info="0 uses the model's own limit; more stretches it with YaRN.",
                minimum=0,
                precision=0,
                elem_id="setting-context",
            )
        load = gr.Button("Load this model", elem_id="load-model", size="sm")
        fields: dict[str, Any] = {}
        preset = gr.Radio(
            [*PRESETS],
            value="auto",
            label="Preset",
            info="Auto picks the fastest settings that fit.",
            elem_id="setting-preset",
        )
        fields["offload"] = gr.Dropdown(
            [*OFFLOADS],
            value=now.offload,
            label="Offload",
            info="Where to keep keys, values and hidden states.",
            elem_id="setting-offload",
        )
        fields["chunk"] = gr.Dropdown(
            ["auto", "256", "512", "1024", "2048", "4096", "8192"],
            value=now.chunk,
            label="Chunk size",
            info="Tokens to process at a time: auto, or any number.",
            allow_custom_value=True,
            elem_id="setting-chunk",
        )
        fields["weights"] = gr.Dropdown(
            ["auto", "device", "stream"],
            value=now.weights,
            label="Weights",
            info="Stream keeps weights off the GPU and loads each layer as it runs.",
            elem_id="setting-weights",
        )
        fields["device_memory"] = gr.Textbox(
            label="GPU memory limit",
            placeholder="e.g. 24GiB; empty: whatever is free",
            elem_id="setting-device-memory",
            max_lines=1,
        )
        fields["host_memory"] = gr.Textbox(
            label="Main memory limit",
            placeholder="e.g. 16GiB; empty: whatever is free",
            elem_id="setting-host-memory",
            max_lines=1,
        )
        fields["max_new_tokens"] = gr.Number(
            now.max_new_tokens,
            label="Longest answer (tokens)",
            minimum=1,
            precision=0,
            elem_id="setting-max-new-tokens",
        )
        fields["temperature"] = gr.Slider(
            0,
            2,
            value=now.temperature,
            step=0.1,
            label="Temperature",
            info="0 always picks the most likely token.",
            elem_id="setting-temperature",
        )
        with gr.Accordion("More sampling options", open=False, elem_id="setting-more"):
            fields["top_p"] = gr.Slider(
                0.05, 1, value=now.top_p, step=0.05, label="Top p", elem_id="setting-top-p"
            )
            fields["top_k"] = gr.Number(
                now.top_k, label="Top k (0: all)", minimum=0, precision=0, elem_id="setting-top-k"
            )
            fields["repetition_penalty"] = gr.Slider(
                1,
                2,
                value=now.repetition_penalty,
                step=0.05,
                label="Repetition penalty (1: off)",
                elem_id="setting-repetition",
            )
            fields["seed"] = gr.Textbox(
                label="Seed", placeholder="empty: different each time", elem_id="setting-seed"
            )
        fields["system"] = gr.Textbox(
            label="System prompt",
            placeholder="empty: answer from the documents and cite pages",
            info="It comes before the documents, so changing it means reading them again.",
            lines=2,
            max_lines=8,
            elem_id="setting-system",
        )

    def on_change(name: str) -> Callable[[Any], None]:
        return lambda value: _warned(lambda: workspace.configure(**{name: _typed(name, value)}))

    for name, component in fields.items():
        # A text takes effect when its box loses the focus, not at every keystroke.
        is_text = isinstance(component, gr.Textbox | gr.Number)
        event = component.blur if is_text else component.input
        event(on_change(name), component, None, **SPOKEN)
        if is_text:
            component.submit(on_change(name), component, None, **SPOKEN)

    def on_preset(name: str) -> list[Any]:
        _warned(lambda: workspace.configure(**PRESETS[name]))
        return [getattr(workspace.settings, key) for key in PRESETS["auto"]]

    preset.input(on_preset, preset, [fields[key] for key in PRESETS["auto"]], **SPOKEN)
    load.click(
        lambda source, tokens: _warned(
            lambda: workspace.model.load(source, int(tokens) if tokens else None)
        ),
        [model, window],
        None,
        **SPOKEN,
    )

    def values() -> list[Any]:
        settings = workspace.settings
        return [workspace.model.source, *(getattr(settings, name) for name in fields)]

    return [model, *fields.values()], values


def _typed(name: str, value: Any) -> Any:
    if name in ("max_new_tokens", "top_k"):
        return int(value or 0)
    return "" if value is None else value


def _warned(act: Callable[[], object]) -> None:
    """Runs `act`; shows what is wrong with the input, if anything, in a corner of the page."""
    try:
        act()
    except (MomError, ValueError) as fault:
        gr.Warning(html.escape(str(fault)), duration=_WARNING_SECONDS)


_MODELS = """<details><summary>Models, and how much each can read on this machine</summary>
<ul class="list"></ul></details>"""

_LIBRARY = """<details><summary>Prepared documents: already read, so they open at once</summary>
<p class="text"></p><form class="quota" hidden><label>Keep at most <input type="text" maxlength="20"
placeholder="e.g. 40 GiB"></label><button type="submit" class="small">Change</button></form>
<p class="answer" role="status"></p><ul class="list"></ul></details>"""
