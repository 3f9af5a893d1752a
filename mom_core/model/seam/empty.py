"""A model without its weights, where tensors cost nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def model_without_weights(config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """A model for a configuration, inside a mode or on a device where tensors cost nothing."""
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    with no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    # Without initialisation nothing is tied yet.
    model.tie_weights()
    return model
