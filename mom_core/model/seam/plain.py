"""The logits of plain transformers, for comparison."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mom_core.model.seam.patches import attention_replaced

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def plain_next_logits(model: PreTrainedModel, token_ids: list[int]) -> Tensor:
    """Next-token logits `[V]` of plain transformers.

    Args:
        model: the model as it is between our calls, unpatched.
        token_ids: the prompt.
    """
    config = model.get_decoder().config
    softcap = getattr(config, "attn_logit_softcapping", None)
    # torch's own attention has no soft-cap, and some versions of transformers drop it silently.
    eager = nullcontext() if softcap is None else attention_replaced(config, "eager")
    with eager:
        device = model.get_input_embeddings().weight.device
        ids = torch.tensor([token_ids], device=device)
        logits: Tensor = model(ids, use_cache=False, logits_to_keep=1).logits[0, -1]
    return logits
