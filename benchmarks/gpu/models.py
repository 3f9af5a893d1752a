"""Models with random weights, made on the device itself: speed and memory do not ask for sense."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from mom_core.forecast.shape import ModelShape
from mom_core.model.catalogue import catalogue
from mom_core.model.seam.decoder import HFSeam

MODEL = "llama-3-8b"
# The same parts, for a dry run.
_TINY: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
# Rotary positions cost the same everywhere, so the window need not be the model's own.
_WINDOW_TOKENS = 1 << 24


def llama_config(*, is_tiny: bool, layers: int | None = None) -> PretrainedConfig:
    """Llama-3-8B's shape, or a tiny one.

    Args:
        is_tiny: for a dry run.
        layers: L; the shape's own if None.
    """
    settings = {**catalogue()[MODEL].config, **(_TINY if is_tiny else {})}
    settings["max_position_embeddings"] = _WINDOW_TOKENS
    if layers is not None:
        settings["num_hidden_layers"] = layers
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    return AutoConfig.for_model(**settings, **ends)


def random_model(
    config: PretrainedConfig, device: torch.device, dtype: torch.dtype
) -> PreTrainedModel:
    """The model, made where it will run: an 8B model never passes through the host."""
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval()


def random_ids(config: PretrainedConfig, tokens: int) -> list[int]:
    """A prompt."""
    generator = torch.Generator().manual_seed(tokens)
    ids: list[int] = torch.randint(0, config.vocab_size, (tokens,), generator=generator).tolist()
    return ids


def shape_of(model: PreTrainedModel) -> ModelShape:
    """What memory and work of a model follow from."""
    return ModelShape.of(HFSeam(model), MODEL)
