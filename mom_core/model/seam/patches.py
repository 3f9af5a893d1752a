"""Temporary changes to a transformers model, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

# A module, and the forward that stands in for its own.
Forward = tuple[nn.Module, Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class LayerCall:
    """What transformers calls one layer with, for one chunk, besides the hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class StandIn(nn.Module):
    """Takes a layer's place in the list; knows the layer's attributes, runs `respond`."""

    def __init__(
        self, layer: nn.Module, respond: Callable[[Tensor, LayerCall], Tensor | tuple[Tensor]]
    ) -> None:
        super().__init__()
        # Not a submodule: the stand-in must not adopt the layer.
        object.__setattr__(self, "_layer", layer)
        self._respond = respond

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(object.__getattribute__(self, "_layer"), name)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Records the call, or answers it, in the layer's place."""
        return self._respond(hidden_states, LayerCall(args, kwargs))


def move_all_but_layers(model: PreTrainedModel, device: torch.device) -> None:
    """Embeddings, norm, head and tables go to the device; the layers stay where they are."""
    with replaced_layers(model.get_decoder(), ()):
        model.to(device)


@contextmanager
def replaced_layers(decoder: nn.Module, layers: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, a decoder has these layers in place of its own.

    Args:
        decoder: the part of a model whose `layers` is a `ModuleList`.
        layers: what its `forward` runs instead.
    """
    before = decoder.layers
    decoder.layers = nn.ModuleList(layers)
    try:
        yield
    finally:
        decoder.layers = before


@contextmanager
def attention_replaced(config: PretrainedConfig, name: str) -> Iterator[None]:
    """Inside, a model's layers use another attention.

    Args:
        config: the decoder's configuration; its layers look there at each call.
        name: the attention's name in transformers' `AttentionInterface`.
    """
    before = attention_name(config)
    config._attn_implementation_internal = name
    try:
        yield
    finally:
        config._attn_implementation_internal = before


def attention_name(config: PretrainedConfig) -> str | None:
    """The name of the attention that a model's layers use now."""
    name: str | None = config._attn_implementation_internal
    return name


def rope_of_whole(
    forward: Callable[..., tuple[Tensor, ...]],
    last_position: int,
    x: Tensor,
    position_ids: Tensor,
    *args: Any,
    **kwargs: Any,
) -> tuple[Tensor, ...]:
    """Rotary tables of a chunk as they are when the whole sequence is run at once.

    LongRoPE looks at the last position it is given, so it is given the last of all.
    """
    last = torch.full_like(position_ids[..., :1], last_position)
    tables = forward(x, torch.cat([position_ids, last], dim=-1), *args, **kwargs)
    return tuple(table[..., :-1, :] for table in tables)


@contextmanager
def replaced_forwards(replacements: Sequence[Forward]) -> Iterator[None]:
    """Modules with another forward; put back afterwards, also one that was somebody's own."""
    before = [(module, module.__dict__.get("forward")) for module, _ in replacements]
    for module, forward in replacements:
        module.__dict__["forward"] = forward
    try:
        yield
    finally:
        for module, own in before:
            if own is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = own
