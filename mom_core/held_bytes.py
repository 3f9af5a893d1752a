"""Bytes held, by tier and kind: one mapping that run, context and weights each add to.

Source: ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, get_args

from mom_core.config import TierName

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Hidden states wait between two layers; buffers are stages and copies of keys and values.
HeldKind = Literal["weights", "kv", "hidden", "buffers"]
HELD_KINDS: tuple[HeldKind, ...] = get_args(HeldKind)


class HeldBytes(Counter[tuple[TierName, HeldKind]]):
    """Bytes by `(tier, kind)`; 0 for a pair that holds nothing."""

    def of_kind(self, kind: HeldKind) -> int:
        """Bytes of one kind on all tiers."""
        return sum(size for (_, held), size in self.items() if held == kind)

    def working(self, tier: TierName) -> int:
        """Bytes of a run's hidden states and buffers on a tier."""
        return self[tier, "hidden"] + self[tier, "buffers"]


class WorkingBytes:
    """What the current run holds beside weights and context; another thread may ask."""

    def __init__(self) -> None:
        self._count: Callable[[], HeldBytes] = HeldBytes

    def watch(self, count: Callable[[], HeldBytes]) -> None:
        """From now on `count` says what the run holds."""
        self._count = count

    def clear(self) -> None:
        """The run is over and holds nothing."""
        self._count = HeldBytes

    @property
    def now(self) -> HeldBytes:
        """Bytes held at this moment."""
        return self._count()


def weights_bytes(model: PreTrainedModel) -> int:
    """Bytes of a model's parameters and buffers; tied weights share one storage and count once."""
    seen = {
        tensor.data_ptr(): tensor.numel() * tensor.element_size()
        for tensor in (*model.parameters(), *model.buffers())
    }
    return sum(seen.values())
