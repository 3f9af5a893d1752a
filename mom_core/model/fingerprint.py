"""What keys and values depend on: whether those of another time may be used with this model.

Every bit of the weights counts: of each tensor name, shape, dtype, a sample of its bytes, and the
sum of all of them as numbers, which takes as long as memory takes to be read once. A change of one
weight changes the sum; so do several, unless they happen to make up for each other.

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

# Of the engine's own files and of what it computes: raised when either changes its meaning.
FORMAT = 1
_SAMPLE_BYTES = 4096
# Of the configuration, what says where the model came from or how it is run, not what it is.
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
    """Digests of all that keys and values depend on, by the names in `WHAT`.

    Args:
        model: with its weights, wherever they lie.
        tokenizer: None where there is none.
        dtype: for keys and values.
        rope: what was changed about the rotary positions; anything JSON can hold.
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
    """What the other has that the one has not, in words; "" if they are the same."""
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
    # Buffers that are not saved are made of the configuration, and some change from run to run.
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
    """A quantised tensor is a bundle of plain ones."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return [part for name in names for part in _plain(getattr(tensor, name))]
    return [tensor.contiguous()]
