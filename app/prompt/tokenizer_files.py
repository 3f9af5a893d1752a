"""A model's tokenizer from its files alone, without the model and without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.documents.cache import DiskCache
from app.prompt.prompt import template_marks
from app.prompt.text_encoder import TextEncoder
from mom_core.errors import ModelUnavailable
from mom_core.model.builtin import BUILTIN_NAME, builtin_folder

_TOKENIZER = "tokenizer.json"
_CONFIG = "tokenizer_config.json"
_TEMPLATE = "chat_template.jinja"


def load_encoder(model: str, cache: DiskCache | None = None) -> TextEncoder:
    """The encoder of a model: the ids are those that the model will be given.

    Args:
        model: the built-in model's name, an id on the model hub, or a folder.
        cache: where ids are kept between runs.

    Raises:
        ModelUnavailable: its tokenizer is not a file of its own, or is not here.
    """
    path = _find(model, _TOKENIZER)
    if path is None:
        raise ModelUnavailable(
            f"The model {model} has no {_TOKENIZER} on this machine. Start mom once with it, or "
            "give a folder that holds the file; a .gguf file does not."
        )
    from tokenizers import Tokenizer

    try:
        backend: Any = Tokenizer.from_file(str(path))
    except Exception as fault:
        # The library raises bare exceptions for whatever is wrong in the file.
        raise ModelUnavailable(f"The tokenizer {path} cannot be read: {fault}.") from fault
    template = _find(model, _TEMPLATE)
    config = _find(model, _CONFIG)
    words = "" if template is None else template.read_text("utf-8")
    unknown = None
    if config is not None:
        values: dict[str, Any] = json.loads(config.read_text("utf-8"))
        words += str(values.get("chat_template") or "")
        token = values.get("unk_token")
        name = token.get("content") if isinstance(token, dict) else token
        unknown = None if name is None else backend.token_to_id(name)
    marks = template_marks(backend.get_added_tokens_decoder(), words, unknown)
    return TextEncoder.of_backend(backend, marks, cache)


def _find(model: str, name: str) -> Path | None:
    folder = builtin_folder() if model == BUILTIN_NAME else Path(model)
    if folder.is_dir():
        path = folder / name
        return path if path.is_file() else None
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, name)
    return Path(found) if isinstance(found, str) else None
