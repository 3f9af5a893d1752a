"""The paper's method for any transformers model, as a block that leaves no trace.

    with memory_saving(model, chunk_tokens=4096, kv="host"):
        model.generate(...)

Inside, each MLP runs on mini-sequences and writes into one output made before; the last MLP and
the head run for the last token alone; keys and values go to the host once, as each layer stores
them, and are attended to there. Layers still see the whole prompt one after the other, so
activations grow with it: what `Engine` does beyond this is to run whole layers in mini-sequences.

Source: MOM, arXiv:2504.12526, sections on mini-sequence inference and KV offload. Its reference
code overwrites the other positions' hidden states in the last layer; here they are either not
needed by anybody, or computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakSet

import torch
from torch import Tensor, nn

from mom_core.attention import Segment
from mom_core.config import EngineConfig
from mom_core.kv.store import KVStore, LayerKV
from mom_core.kv.tiers import Tier, device_tier, host_tier
from mom_core.model.seam.attention import refuse_padding
from mom_core.model.seam.cache import is_empty_cache, segment_cache
from mom_core.model.seam.decoder import HFSeam
from mom_core.model.seam.plain import plain_next_logits
from mom_core.verify import (
    TESTED_MODEL_TYPES,
    ExactnessReceipt,
    made_up_tokens,
    receipt,
    refuse_unless_exact,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Under these names the families keep what runs on every token by itself.
_TOKENWISE = ("mlp", "feed_forward", "block_sparse_moe")
# What marks the tokens of an image, which see each other.
_IMAGE_MARKS = ("token_type_ids", "mm_token_type_ids")
# Models of families without a test that were tried.
_FOUND_EXACT: WeakSet[nn.Module] = WeakSet()


class _OffloadedKV:
    """A layer's keys and values at home on a tier; the newest are attended to where they were made.

    So the prompt's own attention runs on the device, and only past keys lie elsewhere.
    """

    def __init__(self, home: LayerKV, returns_to: Tier | None) -> None:
        self._home = home
        self._returns_to = returns_to
        self._newest: Segment | None = None

    @property
    def tokens(self) -> int:
        return self._home.tokens

    def append(self, keys: Tensor, values: Tensor) -> None:
        if self._returns_to is not None and self.tokens and self._home.tier != self._returns_to:
            self._home = self._home.moved_to(self._returns_to)
        self._newest = Segment(self._home.tokens, keys, values)
        self._home.append(keys, values)

    def crop(self, tokens: int) -> None:
        self._home.crop(tokens)

    def segments(self) -> list[Segment]:
        # Asked for once, right after `append`: then the newest need not be held any longer.
        newest, self._newest = self._newest, None
        if newest is None:
            return self._home.segments()
        past = [s.slice(0, newest.start) for s in self._home.segments() if s.start < newest.start]
        return [*past, newest]


@contextmanager
def memory_saving(
    model: PreTrainedModel,
    *,
    chunk_tokens: int = 4096,
    kv: Literal["device", "host"] = "host",
    kv_returns: bool = False,
) -> Iterator[PreTrainedModel]:
    """Runs a transformers model in less memory inside the block, with the same answers.

    For inference: one sequence at a time, without padding, without gradients. A call that asks
    for hidden states or for more than the last token's logits gets them; one that says nothing of
    `logits_to_keep` gets the last. A cache made inside the block can only be used inside one.

    Args:
        model: any model `Engine` takes; the plain module again after the block.
        chunk_tokens: C, tokens of one mini-sequence.
        kv: where keys and values live: "device", or "host" (sent there once, never rewritten).
        kv_returns: whether keys and values come back to the device when the answer begins, as the
            paper has it. Else they are attended to where they are.

    Yields:
        The model.

    Raises:
        InvalidSetting: a setting is not allowed.
        UnsupportedModel: the model is not one `Engine` could run (one of a family without a test
            is tried first, once), or a call is padded, batched or masked otherwise.
    """
    config = EngineConfig(chunk_tokens=chunk_tokens, kv=kv)
    seam = HFSeam(model)
    device = device_tier(seam.device)
    tier = host_tier(seam.device) if config.kv == "host" else device
    if seam.config.model_type not in TESTED_MODEL_TYPES and model not in _FOUND_EXACT:
        name = model.config.name_or_path or type(model).__name__
        refuse_unless_exact(lambda: _receipt(seam, tier), name, seam.config.model_type)
        _FOUND_EXACT.add(model)
    with saving(seam, tier, chunk_tokens=chunk_tokens, returns_to=device if kv_returns else None):
        yield model


def _receipt(seam: HFSeam, tier: Tier) -> ExactnessReceipt:
    """A made-up prompt whole and in three calls, against plain transformers."""
    model, ids = seam.model, made_up_tokens(seam.vocabulary_size)
    plain = plain_next_logits(model, ids)
    ways: list[Tensor] = []
    with saving(seam, tier, chunk_tokens=len(ids) // 3, returns_to=None):
        for parts in ([ids], [ids[:15], ids[15:-1], ids[-1:]]):
            cache = None
            for part in parts:
                called = torch.tensor([part], device=seam.device)
                output = model(called, past_key_values=cache)
                cache = output.past_key_values
            ways.append(output.logits[0, -1].float())
    return receipt(plain, ways, len(ids), seam.dtype)


@contextmanager
def saving(
    seam: HFSeam, tier: Tier, *, chunk_tokens: int, returns_to: Tier | None
) -> Iterator[None]:
    """`memory_saving` for a model in parts, with tiers of the caller's own.

    Args:
        seam: the model.
        tier: where keys and values live.
        chunk_tokens: C.
        returns_to: where they move when the answer begins; None leaves them.
    """
    run = _SavingRun(chunk_tokens, tier, returns_to)
    forward = seam.model.forward
    forwards: list[tuple[nn.Module, Callable[..., Any]]] = [
        # `generate` looks at the forward's signature.
        (seam.model, update_wrapper(partial(run.model_forward, forward, seam), forward))
    ]
    for index, layer in enumerate(seam.layers):
        is_last = index + 1 == len(seam.layers)
        forwards += [
            (module, partial(run.split, module.forward, is_last))
            for name, module in layer.named_children()
            if name in _TOKENWISE
        ]
    with seam.memory_saving(forwards):
        yield


class _SavingRun:
    """What the stand-ins of one block share."""

    def __init__(self, chunk_tokens: int, tier: Tier, returns_to: Tier | None) -> None:
        self._chunk_tokens = chunk_tokens
        self._tier = tier
        self._returns_to = returns_to
        self._only_last_token = False

    def model_forward(
        self,
        forward: Callable[..., Any],
        seam: HFSeam,
        input_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The model's forward with our cache, for the last token's logits unless asked."""
        refuse_padding(kwargs.get("attention_mask"), input_ids)
        if kwargs.get("use_cache") is not False and is_empty_cache(kwargs.get("past_key_values")):
            store = KVStore(len(seam.layers), self._tier, seam.recurrent_layers)
            kwargs["past_key_values"] = segment_cache(
                [
                    _OffloadedKV(layer, self._returns_to) if isinstance(layer, LayerKV) else layer
                    for layer in store.layers
                ],
                seam.config,
            )
            kwargs["use_cache"] = True
        for name in _IMAGE_MARKS:
            # Where nothing is marked the mask they stand for is the causal one.
            if kwargs.get(name) is not None and not kwargs[name].any():
                del kwargs[name]
        if kwargs.get("labels") is None:
            kwargs.setdefault("logits_to_keep", 1)
        wants_states = kwargs.get(
            "output_hidden_states", getattr(seam.config, "output_hidden_states", False)
        )
        self._only_last_token = kwargs.get("logits_to_keep") == 1 and not wants_states
        try:
            with torch.no_grad():
                return forward(input_ids=input_ids, **kwargs)
        finally:
            self._only_last_token = False

    def split(
        self,
        forward: Callable[..., Any],
        is_last_layer: bool,
        hidden: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """A token-wise module over mini-sequences; in the last layer over the last token.

        Args:
            forward: the module's own.
            is_last_layer: whether nothing but the head comes after.
            hidden: `[1, S, E]`.
        """
        tokens = hidden.shape[1]
        if is_last_layer and self._only_last_token and tokens > 1:
            starts = [tokens - 1]
            # Nobody reads the other rows: only the last goes on to the head.
            output = torch.zeros_like(hidden)
        elif tokens > self._chunk_tokens:
            starts = list(range(0, tokens, self._chunk_tokens))
            output = torch.empty_like(hidden)
        else:
            return forward(hidden, *args, **kwargs)
        others: list[Tensor] = []
        is_tuple = False
        for start in starts:
            end = start + self._chunk_tokens
            part = forward(hidden[:, start:end], *args, **kwargs)
            is_tuple = isinstance(part, tuple)
            output[:, start:end] = part[0] if is_tuple else part
            others += part[1:2] if is_tuple else ()
        # Mixtures of experts also give their router's scores, one row a token.
        return (output, torch.cat(others)) if is_tuple else output
