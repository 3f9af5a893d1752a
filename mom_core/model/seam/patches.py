"""Temporary changes to a transformers model, which are undone afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

# A module, and the `forward` that replaces its own.
Forward = tuple[nn.Module, Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class LayerCall:
    """The arguments with which transformers calls one layer for one chunk.

    Args:
        args: positional arguments after the hidden states.
        kwargs: keyword arguments.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class StandIn(nn.Module):
    """Replaces a layer in the list of layers: it has the layer's attributes, but runs `respond`.

    Args:
        layer: the layer it replaces.
        respond: function of the hidden states `[1, C, E]` and the call, which returns the output.
    """

    def __init__(
        self, layer: nn.Module, respond: Callable[[Tensor, LayerCall], Tensor | tuple[Tensor]]
    ) -> None:
        super().__init__()
        # Bypass nn.Module, so that the layer does not become a submodule.
        object.__setattr__(self, "_layer", layer)
        self._respond = respond

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(object.__getattribute__(self, "_layer"), name)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Passes the call to `respond`."""
        return self._respond(hidden_states, LayerCall(args, kwargs))


def move_all_but_layers(model: PreTrainedModel, device: torch.device) -> None:
    """Moves embeddings, norm, head and tables to a device; the layers stay where they are.

    Args:
        model: the model.
        device: where the rest of it goes.
    """
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
    """The rotary tables of a chunk, as they would be if the whole sequence ran at once.

    LongRoPE depends on the last position it sees, so the last position of all is appended.

    Args:
        forward: the rotary module's own `forward`.
        last_position: last position of the whole sequence.
        x: tensor that sets the tables' dtype and device.
        position_ids: positions of the chunk, `[1, C]`.
        *args: further positional arguments of `forward`.
        **kwargs: further keyword arguments of `forward`.

    Returns:
        The tables of the chunk, `[1, C, D]` each.
    """
    last = torch.full_like(position_ids[..., :1], last_position)
    tables = forward(x, torch.cat([position_ids, last], dim=-1), *args, **kwargs)
    return tuple(table[..., :-1, :] for table in tables)


@contextmanager
def replaced_forwards(replacements: Sequence[Forward]) -> Iterator[None]:
    """Inside, modules run another `forward`.

    Args:
        replacements: modules with their `forward`. One that somebody else had replaced is
            restored, too.
    """
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
