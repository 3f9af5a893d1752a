"""Tiny random models whose every feature matters, and plain transformers' answers."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers

VOCABULARY = 97
WINDOW = 9
# Where the tiny LongRoPE model changes its rotation.
LONGROPE_AT = 24
_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    # What our C kernels take; some families have 8, which they do not.
    "head_dim": 16,
    "max_position_embeddings": 512,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": None,
}
# What shapes attention and states: random weights are so small that hardly anything matters.
_SHARPENED = ("q_proj.weight", "k_proj.weight", "qkv_proj.weight", "o_proj.weight", ".conv.")
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
_DELTA_NET = {
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"],
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4,
}
_GEMMA3 = {
    "sliding_window": WINDOW,
    "num_hidden_layers": 4,
    "layer_types": [
        "sliding_attention",
        "sliding_attention",
        "full_attention",
        "sliding_attention",
    ],
    "query_pre_attn_scalar": 8,
}


@dataclass(frozen=True)
class Family:
    """A tiny configuration.

    Args:
        name: transformers' classes, without `Config` and `ForCausalLM`.
        extra: settings beyond the common shape.
        features: what can be taken away so that a comparison must fail.
        model: the model's class, if it is not `<name>ForCausalLM`.
        vision: settings of the part that sees, for models that also do.
    """

    name: str
    extra: dict[str, Any] = field(default_factory=dict)
    features: tuple[str, ...] = ("scale", "rope")
    model: str = ""
    vision: dict[str, Any] = field(default_factory=dict)


FAMILIES: dict[str, Family] = {
    "llama": Family("Llama"),
    "mistral": Family("Mistral", {"sliding_window": WINDOW}, ("scale", "rope", "window")),
    "qwen2": Family("Qwen2", {"head_dim": 8}),
    "qwen2-window": Family(
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
        ("scale", "rope", "window"),
    ),
    "qwen3": Family("Qwen3"),
    "mixtral": Family("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3-moe": Family("Qwen3Moe", {"num_experts": 4, "decoder_sparse_step": 1, **_EXPERTS}),
    "phi3": Family("Phi3", {"sliding_window": WINDOW}, ("scale", "rope", "window")),
    "phi3-longrope": Family(
        "Phi3",
        {
            # Its configuration takes no other head size for its factors.
            "head_dim": 8,
            "sliding_window": None,
            "original_max_position_embeddings": LONGROPE_AT,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": [1.0] * 4,
                "long_factor": [9.0, 7.0, 5.0, 4.0],
                "original_max_position_embeddings": LONGROPE_AT,
                "factor": 512 / LONGROPE_AT,
            },
        },
        ("scale", "length"),
    ),
    "gemma2": Family(
        "Gemma2",
        {
            "sliding_window": WINDOW,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 3.0,
            "query_pre_attn_scalar": 8,
        },
        ("scale", "rope", "window", "softcap"),
    ),
    "gemma3": Family("Gemma3Text", _GEMMA3, ("scale", "rope", "window"), model="Gemma3ForCausalLM"),
    "gpt-oss": Family(
        "GptOss",
        {
            "sliding_window": WINDOW,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        },
        ("scale", "rope", "window", "sinks"),
    ),
    "olmo2": Family("Olmo2"),
    "granite": Family(
        "Granite",
        {
            "residual_multiplier": 0.3,
            "attention_multiplier": 0.4,
            "embedding_multiplier": 3.0,
            "logits_scaling": 2.0,
        },
    ),
    "glm4": Family("Glm4", {"partial_rotary_factor": 0.5}),
    "cohere2": Family(
        "Cohere2",
        {
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "logit_scale": 0.5,
        },
        ("scale", "rope", "window"),
    ),
    "starcoder2": Family(
        "Starcoder2", {"head_dim": 8, "sliding_window": WINDOW}, ("scale", "rope", "window")
    ),
    "smollm3": Family("SmolLM3", {"no_rope_layers": [1, 0, 1]}),
    "ministral3": Family(
        "Ministral3",
        {
            # Queries are scaled again every four positions.
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 16.0,
                "original_max_position_embeddings": 4,
                "llama_4_scaling_beta": 0.5,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
            },
            "max_position_embeddings": 64,
        },
    ),
    "qwen3-next": Family(
        "Qwen3Next",
        {"num_experts": 4, "shared_expert_intermediate_size": 32, **_EXPERTS, **_DELTA_NET},
        ("scale", "rope", "state"),
    ),
    "qwen3.5": Family(
        "Qwen3_5Text", _DELTA_NET, ("scale", "rope", "state"), model="Qwen3_5ForCausalLM"
    ),
    "lfm2": Family(
        "Lfm2",
        {"layer_types": ["conv", "full_attention", "conv"], "block_multiple_of": 16},
        ("scale", "rope", "state"),
    ),
    "qwen3.5-vision": Family(
        "Qwen3_5",
        _DELTA_NET,
        ("scale", "rope", "state"),
        model="Qwen3_5ForConditionalGeneration",
        vision={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 48,
            "num_position_embeddings": 16,
        },
    ),
    "gemma3-vision": Family(
        "Gemma3",
        _GEMMA3,
        ("scale", "rope", "window"),
        model="Gemma3ForConditionalGeneration",
        vision={
            "num_hidden_layers": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
    ),
}
# The layer all others vary, in its own variations: run through the longest matrices.
CORE = ["llama", "mistral", "qwen2", "qwen2-window", "qwen3"]
RECURRENT = [name for name, family in FAMILIES.items() if "state" in family.features]


def make_model(family: str, kv_heads: int = 2) -> Any:
    """A random model in fp32 with query and key weights large enough to shape the attention."""
    tiny = FAMILIES[family]
    settings = {**_SHAPE, "num_key_value_heads": kv_heads, **tiny.extra}
    make_config = getattr(transformers, f"{tiny.name}Config")
    if tiny.vision:
        config = make_config(text_config=settings, vision_config=tiny.vision)
    else:
        config = make_config(**settings)
    # torch's own attention has no soft-cap: transformers 5.17 drops it silently.
    softcap = "softcap" in tiny.features
    config._attn_implementation = "eager" if softcap or "sinks" in tiny.features else "sdpa"
    torch.manual_seed(7)
    model = getattr(transformers, tiny.model or f"{tiny.name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in _SHARPENED):
                parameter.mul_(8)
            elif name.endswith(("bias", "sinks")):
                parameter.normal_(std=0.5)
    return model


@functools.cache
def shared_model(family: str) -> Any:
    """The same model for all who leave it as it is."""
    return make_model(family)


def make_prompt(length: int, seed: int = 0) -> list[int]:
    """Token ids below those that stand for images."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY - 8, (length,), generator=generator).tolist()


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
    ids = torch.tensor([token_ids], device=model.device)
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
