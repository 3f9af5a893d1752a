"""An interrupted reading: what it leaves behind, and how it resumes.

In layer-streaming order that is what the layers have stored, and the hidden states between the
layer that was running and the one before. It goes on from there, chunk by chunk as it would have,
so the result is the same bit by bit. What was read for one prompt also serves another one that
begins with the same tokens.

Source: ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from mom_core.held_bytes import HeldBytes
from mom_core.kv.state import LayerState
from mom_core.kv.store import KVStore, LayerKV
from mom_core.kv.transfer import HiddenStates
from mom_core.snapshot.manifest import fraction_done


@dataclass(slots=True)
class PartialReading:
    """A prefill that was interrupted: what its layers stored is in the store, beside this.

    Args:
        token_ids: all that were to be read.
        past: tokens the store held before.
        layer: that was running.
        position: tokens that this layer has done, those before included.
        hidden: before this layer from `position` on, and after it up to there; in the last layer
            all are before it.
        logits: the next token's, if it was interrupted at its very end.
    """

    token_ids: list[int]
    past: int
    layer: int
    position: int
    hidden: HiddenStates
    logits: Tensor | None = None

    def fraction(self, layers: int) -> float:
        """How much of it is done, of L layers: those that are, and the tokens of the one that ran.

        Args:
            layers: L.
        """
        done_tokens = self.position - self.past
        return fraction_done(self.layer, layers, done_tokens, len(self.token_ids))

    def crop(self, store: KVStore, tokens: int) -> bool:
        """Makes it the reading of fewer tokens. The same causes have the same effects.

        Args:
            store: with what its layers stored.
            tokens: how many of `token_ids` to keep; recurrent states only go back to a kept one, so
                fewer may be left.

        Returns:
            Whether anything is left.
        """
        whole, end = len(self.token_ids), self.past + tokens
        done = store.layers[: self.layer + 1]
        kept = [layer.kept_at for layer in done if isinstance(layer, LayerState)]
        if kept and tokens < whole:
            # The layer that was running has kept none beyond its position.
            if self.position < end and isinstance(done[-1], LayerState):
                kept = kept[:-1]
            if kept:
                end = max((at for at in frozenset.intersection(*kept) if at <= end), default=0)
        if end <= self.past:
            return False
        self.token_ids = self.token_ids[: end - self.past]
        for layer in done:
            if isinstance(layer, LayerKV):
                layer.crop(end)
            elif layer.tokens > end:
                layer.go_to(end)
        self.position = min(self.position, end)
        if self.layer + 1 == len(store.layers) and self.position == end and tokens < whole:
            # Its last token has to go all the way, which it did not before.
            self._go_back_in_last_layer(store.layers[-1], end - 1)
        return True

    def _go_back_in_last_layer(self, layer: LayerKV | LayerState, most: int) -> None:
        self.logits = None
        if isinstance(layer, LayerKV):
            layer.crop(most)
            self.position = most
        else:
            self.position = max(at for at in layer.kept_at if at <= most)
            layer.go_to(self.position)


class Unfinished:
    """What an interrupted reading of a context left, until it is resumed or dropped."""

    def __init__(self) -> None:
        self.reading: PartialReading | None = None

    @property
    def held_bytes(self) -> HeldBytes:
        """Bytes of the hidden states that wait."""
        reading = self.reading
        if reading is None:
            return HeldBytes()
        return HeldBytes({(reading.hidden.tier.name, "hidden"): reading.hidden.used_bytes})


class ReadingState(Protocol):
    """Where a prefill is, as whoever keeps it on disk needs it."""

    store: KVStore
    past: int
    layer: int
    position: int
    hidden: HiddenStates | None
    logits: Tensor | None

    def wait_for_copies(self) -> None:
        """Returns when no copy between tiers is under way."""


class Checkpoints(Protocol):
    """Keeps a prefill on disk every so often; see `generate.checkpoint`."""

    def layer_done(self, run: ReadingState) -> None:
        """Called between two layers."""

    def interrupted(self, run: ReadingState) -> None:
        """Called when the reading ends before it is complete."""
