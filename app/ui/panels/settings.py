"""Settings in plain words: each holds from the next question on; the forecast shows its effect."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import gradio as gr

from app.ui.component import markup
from app.workspace.settings import OFFLOADS, PRESETS, Settings
from app.workspace.workspace import Workspace
from mom_core.errors import MomError

# Only what goes through Gradio's queue can show a warning.
SPOKEN: dict[str, Any] = {
    "show_progress": "hidden",
    "api_visibility": "private",
    "concurrency_limit": None,
}
_WARNING_SECONDS = 12


def settings_panel(workspace: Workspace) -> tuple[list[Any], Callable[[], list[Any]]]:
    """`#settings`.

    Returns:
        Its components, and a function that gives their values as they are in force.
    """
    now = Settings()
    with gr.Column(elem_id="settings"):
        markup("models", _MODELS)
        markup("library", _LIBRARY)
        with gr.Row(elem_id="setting-model-row"):
            model = gr.Textbox(
                label="Model",
                info="smollm2-135m, an id on the model hub, a folder, or a .gguf file.",
                elem_id="setting-model",
                max_lines=1,
            )
            window = gr.Number(
                0,
                label="Context tokens",
                info="More than the model was made for stretches it (YaRN). 0: as made.",
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
            info="Auto takes the fastest way that fits.",
            elem_id="setting-preset",
        )
        fields["offload"] = gr.Dropdown(
            [*OFFLOADS],
            value=now.offload,
            label="Offload",
            info="Where keys, values and hidden states are kept.",
            elem_id="setting-offload",
        )
        fields["chunk"] = gr.Dropdown(
            ["auto", "256", "512", "1024", "2048", "4096", "8192"],
            value=now.chunk,
            label="Chunk size",
            info="Tokens read at a time: auto or any number.",
            allow_custom_value=True,
            elem_id="setting-chunk",
        )
        fields["weights"] = gr.Dropdown(
            ["auto", "device", "stream"],
            value=now.weights,
            label="Weights",
            info="Stream keeps them off the GPU and brings each layer when it runs.",
            elem_id="setting-weights",
        )
        fields["device_memory"] = gr.Textbox(
            label="GPU memory at most",
            placeholder="what is free, or such as 24GiB",
            elem_id="setting-device-memory",
            max_lines=1,
        )
        fields["host_memory"] = gr.Textbox(
            label="Memory of this machine at most",
            placeholder="what is free, or such as 16GiB",
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
            info="0 always takes the likeliest word.",
            elem_id="setting-temperature",
        )
        with gr.Accordion("More about sampling", open=False, elem_id="setting-more"):
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
                label="Seed", placeholder="empty: another one each time", elem_id="setting-seed"
            )
        fields["system"] = gr.Textbox(
            label="System prompt",
            placeholder="empty: answer from the documents and name the page",
            info="It stands before the documents: if you change it, they are read again.",
            lines=2,
            max_lines=8,
            elem_id="setting-system",
        )

    def on_change(name: str) -> Callable[[Any], None]:
        return lambda value: _warned(lambda: workspace.configure(**{name: _typed(name, value)}))

    for name, component in fields.items():
        # A text is taken when it is left, not at every letter.
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
    """What a person got wrong is said in a corner of the page; nothing is changed."""
    try:
        act()
    except (MomError, ValueError) as fault:
        gr.Warning(html.escape(str(fault)), duration=_WARNING_SECONDS)


_MODELS = """<details><summary>Models and what they read on this machine</summary>
<ul class="list"></ul></details>"""

_LIBRARY = """<details><summary>Prepared documents: what is read opens at once next time</summary>
<p class="text"></p><form class="quota" hidden><label>Keep at most <input type="text" maxlength="20"
placeholder="such as 40 GiB"></label><button type="submit" class="small">Change</button></form>
<p class="answer" role="status"></p><ul class="list"></ul></details>"""
