"""A model without weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def model_without_weights(config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """A model with uninitialised weights, for use where tensors take no memory.

    Args:
        config: the model's configuration.
        dtype: dtype of the weights.
    """
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    with no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    # Skipping the initialisation also skips tying weights.
    model.tie_weights()
    return model
