"""What a context holds, as values to compare."""

from __future__ import annotations

import torch
from torch import Tensor

from mom_core.context import Context
from mom_core.kv.store import LayerKV


def contents(context: Context) -> list[Tensor]:
    """All keys and values, and the states after all tokens."""
    found: list[Tensor] = []
    for layer in context.store.layers:
        if isinstance(layer, LayerKV):
            for part in ("keys", "values"):
                parts = [getattr(segment, part) for segment in layer.segments()]
                found.append(torch.cat(parts, dim=2))
        else:
            for values in layer.kept_parts[context.tokens].values():
                found += [value for value in values.values() if isinstance(value, Tensor)]
    return found
