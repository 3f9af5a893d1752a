"""A fingerprint of all that keys and values depend on, to check whether saved ones still fit.

All weights count. For each tensor, the fingerprint includes name, shape, dtype, a sample of the
bytes, and the sum of all bytes as integers, which takes one pass over memory. Changing one weight
changes the sum. Changing several does too, unless the changes happen to cancel out.

Source: ours.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Increase when the meaning of the engine's files, or of what it computes, changes.
FORMAT = 1
_SAMPLE_BYTES = 4096
# Parts of a configuration that say where the model came from or how it is run, not what it is.
_NOT_THE_MODEL = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache")

WHAT = {
    "format": "another version of mom-chat",
    "weights": "other weights",
    "configuration": "another configuration of the model",
    "dtype": "another dtype",
    "rope": "other rotary positions (context window)",
    "tokenizer": "another tokenizer",
    "template": "another chat template",
}


def model_fingerprint(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    dtype: torch.dtype,
    rope: object,
) -> dict[str, str]:
    """Digests of everything that keys and values depend on, by the names in `WHAT`.

    Args:
        model: the model, with its weights on any tier.
        tokenizer: tokenizer of the model; None if there is none.
        dtype: dtype of keys and values.
        rope: changes to the rotary positions, as anything that JSON can represent.
    """
    config = {k: v for k, v in model.config.to_dict().items() if k not in _NOT_THE_MODEL}
    template = getattr(tokenizer, "chat_template", None)
    return {
        "format": str(FORMAT),
        "weights": _weights_digest(model),
        "configuration": _digest(_as_json(config)),
        "dtype": str(dtype).removeprefix("torch."),
        "rope": _digest(_as_json([config.get("rope_parameters"), rope])),
        "tokenizer": "" if tokenizer is None else _digest(_tokenizer_words(tokenizer)),
        "template": "" if template is None else _digest(_as_json(template)),
    }


def difference(one: dict[str, str], other: dict[str, str]) -> str:
    """In words, the first thing in which a fingerprint differs from another; "" if nothing does.

    Args:
        one: the fingerprint that is wanted.
        other: the fingerprint that is compared with it.
    """
    return next((words for name, words in WHAT.items() if one.get(name) != other.get(name)), "")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _as_json(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _tokenizer_words(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return str(backend.to_str())
    return _as_json(sorted(tokenizer.get_vocab().items()))


@torch.no_grad()
def _weights_digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    # Unsaved buffers are left out: they follow from the configuration, and some vary between runs.
    for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
        for part in _plain(tensor.detach()):
            flat = part.reshape(-1).view(torch.uint8)
            whole = len(flat) // 8 * 8
            total = int(flat[:whole].view(torch.int64).sum()) if whole else 0
            ends = torch.cat((flat[:_SAMPLE_BYTES], flat[-_SAMPLE_BYTES:])).cpu()
            words = f"{name} {tuple(part.shape)} {part.dtype} {total}\n"
            digest.update(words.encode() + ends.numpy().tobytes())
    return digest.hexdigest()[:32]


def _plain(tensor: Tensor) -> list[Tensor]:
    """The plain tensors that a tensor consists of; a quantised one consists of several."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return [part for name in names for part in _plain(getattr(tensor, name))]
    return [tensor.contiguous()]
