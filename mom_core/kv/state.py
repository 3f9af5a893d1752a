"""What a recurrent or convolution layer carries from token to token.

Such a layer (Gated DeltaNet, short convolution) has no keys and values but a state of fixed size
that every token changes, so nothing can be cut off its end. Instead, states are kept at chosen
positions, and going back means going back to the nearest of them.

Source: ours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# The state's parts by name, each by its number: tensors, flags and sizes.
Parts = dict[str, dict[int, Any]]
# A kept tensor lies on the host; with it, where it belongs.
_Kept = dict[str, dict[int, Any]]


class LayerState:
    """The state of one layer after `tokens` tokens, and those kept on the way.

    Whoever runs the layer changes `parts` in place and then calls `advance`.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self.parts: Parts = {}
        self._kept: dict[int, _Kept] = {}
        # The kept position whose parts have still to be brought back; None if all is in place.
        self._wanted: int | None = None

    def adopt(self, parts: Parts) -> None:
        """Takes on the parts of an untouched layer: its state after no token."""
        self.parts = parts
        self._kept[0] = _copied(parts)

    def advance(self, tokens: int) -> None:
        """The layer has run: this is its state after `tokens` tokens in all."""
        self.tokens = tokens

    def keep(self) -> None:
        """Keeps the state as it is now, to go back to."""
        if self.tokens not in self._kept:
            self._kept[self.tokens] = _copied(self.parts)

    def branch(self) -> LayerState:
        """The same state and the same kept ones, which nobody changes; each goes its own way."""
        self.settle()
        other = LayerState()
        other.tokens = self.tokens
        other.parts = _restored(_copied(self.parts))
        other._kept = dict(self._kept)
        return other

    @property
    def kept_parts(self) -> dict[int, Parts]:
        """The kept states by position, their tensors on the host; not to be changed."""
        return {
            at: {
                name: {i: _tensor(value) for i, value in values.items()}
                for name, values in kept.items()
            }
            for at, kept in self._kept.items()
        }

    def restore(self, kept: dict[int, Parts], tokens: int, device: torch.device) -> None:
        """Takes on kept states, and goes to one of them.

        Args:
            kept: as `kept_parts` gave them.
            tokens: the position to go to.
            device: where the model computes.
        """
        for at, parts in kept.items():
            self._kept[at] = {
                name: {
                    i: (value, device) if isinstance(value, Tensor) else value
                    for i, value in values.items()
                }
                for name, values in parts.items()
            }
        self.go_to(tokens)

    def now(self) -> Parts:
        """A copy of the state as it is, for `put_back`."""
        self.settle()
        return {
            name: {i: v.clone() if isinstance(v, Tensor) else v for i, v in values.items()}
            for name, values in self.parts.items()
        }

    def put_back(self, parts: Parts, tokens: int) -> None:
        """Makes the state what it was when `now` gave these parts; they are used up."""
        self._become(parts, tokens)

    @property
    def kept_at(self) -> frozenset[int]:
        """Positions that can be gone back to."""
        return frozenset(self._kept) | {0}

    def forget(self, tokens: int) -> None:
        """Drops a kept state."""
        if tokens and tokens != self._wanted:
            self._kept.pop(tokens, None)

    def go_to(self, tokens: int) -> None:
        """Puts the state back to a kept one, and forgets all later ones.

        Raises:
            KeyError: none is kept at this position.
        """
        self.give_up(tokens)
        self.settle()

    def give_up(self, tokens: int) -> None:
        """`go_to` that takes no memory, for after a failure: `settle` brings the parts back.

        Raises:
            KeyError: none is kept at this position.
        """
        if self.parts and tokens not in self._kept:
            raise KeyError(tokens)
        self.tokens, self._wanted = tokens, tokens
        for later in [at for at in self._kept if at > tokens]:
            del self._kept[later]

    def settle(self) -> None:
        """Brings back what `give_up` left to be brought back; must come before the layer runs."""
        if self._wanted is None:
            return
        self._become(_restored(self._kept[self._wanted]) if self.parts else {}, self._wanted)

    def _become(self, parts: Parts, tokens: int) -> None:
        for name, values in parts.items():
            # In place: a cache of transformers holds the same dictionaries.
            self.parts[name].clear()
            self.parts[name].update(values)
        self.tokens, self._wanted = tokens, None

    @property
    def state_bytes(self) -> int:
        """Bytes of the state now."""
        return _bytes(self.parts)

    @property
    def kept_bytes(self) -> int:
        """Bytes of the kept states, on the host."""
        return sum(_bytes(kept) for kept in self._kept.values())


def _tensor(kept: Any) -> Any:
    return kept[0] if isinstance(kept, tuple) else kept


def _copied(parts: Parts) -> _Kept:
    return {
        name: {
            i: (value.to("cpu", copy=True), value.device) if isinstance(value, Tensor) else value
            for i, value in values.items()
        }
        for name, values in parts.items()
    }


def _restored(kept: _Kept) -> Parts:
    return {
        name: {
            i: value[0].to(value[1], copy=True) if isinstance(value, tuple) else value
            for i, value in values.items()
        }
        for name, values in kept.items()
    }


def _bytes(parts: Parts | _Kept) -> int:
    total = 0
    for values in parts.values():
        for value in values.values():
            tensor = _tensor(value)
            if isinstance(tensor, torch.Tensor):
                total += tensor.numel() * tensor.element_size()
    return total
