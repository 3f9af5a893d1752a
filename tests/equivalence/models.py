"""Tiny random models whose every feature matters, and plain transformers' answers."""

from __future__ import annotations

from typing import Any

import torch
import transformers

VOCABULARY = 97
WINDOW = 9
_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": None,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "mistral": ("Mistral", {"sliding_window": WINDOW}),
    "qwen2": ("Qwen2", {}),
    "qwen2-window": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", {}),
}


def make_model(family: str, kv_heads: int = 2) -> Any:
    """A random model in fp32 with query and key weights large enough to shape the attention."""
    name, extra = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(
        **{**_SHAPE, "num_key_value_heads": kv_heads, **extra}
    )
    config._attn_implementation = "sdpa"
    torch.manual_seed(7)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "q_proj.weight" in parameter_name or "k_proj.weight" in parameter_name:
                parameter.mul_(8)
            elif parameter_name.endswith("bias"):
                parameter.normal_(std=0.5)
    return model


def make_prompt(length: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, (length,), generator=generator).tolist()


@torch.no_grad()
def plain_logits(model: Any, token_ids: list[int]) -> torch.Tensor:
    """Next-token logits [V] of plain transformers."""
    logits: torch.Tensor = model(torch.tensor([token_ids]), logits_to_keep=1).logits[0, -1]
    return logits


@torch.no_grad()
def plain_greedy(model: Any, token_ids: list[int], new_tokens: int) -> list[int]:
    """Greedy tokens of plain transformers.

    The mask is given: else `generate` would take some token for padding.
    """
    ids = torch.tensor([token_ids])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    result: list[int] = output[0, len(token_ids) :].tolist()
    return result


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference, relative to the largest logit."""
    return float((ours - theirs).abs().max() / theirs.abs().max())
