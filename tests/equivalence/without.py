"""The engine, run as if it did not know of a feature."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch

from mom_core.kv.state import LayerState
from mom_core.model.seam import attention, decoder


@contextmanager
def without(feature: str, model: Any) -> Iterator[None]:
    """Our engine, run as if it did not know of a feature."""
    whole = attention.segment_attention

    def changed(*args: Any, **kwargs: Any) -> torch.Tensor:
        kwargs[feature] = kwargs["scale"] * 1.1 if feature == "scale" else None
        return whole(*args, **kwargs)

    def forgets(state: LayerState, tokens: int) -> None:
        state.go_to(0)
        state.tokens = tokens

    def unrotated(forward: Any, *args: Any, **kwargs: Any) -> Any:
        cos, sin = forward(*args, **kwargs)
        return torch.ones_like(cos), torch.zeros_like(sin)

    if feature == "state":
        with mock.patch.object(LayerState, "advance", forgets):
            yield
    elif feature == "length":
        with mock.patch.object(
            decoder, "rope_of_whole", lambda forward, _, *a, **k: forward(*a, **k)
        ):
            yield
    elif feature == "rope":
        rope = model.get_decoder().rotary_emb
        plain = rope.forward
        rope.forward = lambda *args, **kwargs: unrotated(plain, *args, **kwargs)
        try:
            yield
        finally:
            del rope.forward
    else:
        with mock.patch.object(attention, "segment_attention", changed):
            yield
