"""Plain transformers' answer, for comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def plain_next_logits(model: PreTrainedModel, token_ids: list[int]) -> Tensor:
    """Next-token logits `[V]` of plain transformers, as the model is between our calls."""
    config = model.get_decoder().config
    before = config._attn_implementation_internal
    if getattr(config, "attn_logit_softcapping", None) is not None:
        # torch's own attention has no soft-cap, and some versions drop it without a word.
        config._attn_implementation_internal = "eager"
    try:
        device = model.get_input_embeddings().weight.device
        ids = torch.tensor([token_ids], device=device)
        logits: Tensor = model(ids, use_cache=False, logits_to_keep=1).logits[0, -1]
        return logits
    finally:
        config._attn_implementation_internal = before
