"""The state that a recurrent or convolution layer carries from token to token.

Such a layer (Gated DeltaNet, short convolution) has no keys and values. It has a state of fixed
size that every token changes, so the last tokens cannot be cut off. Instead, copies of the state
are kept at chosen positions, and going back means going back to the nearest copy.

Source: ours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Parts of a state by name, then by number: tensors, flags and sizes.
Parts = dict[str, dict[int, Any]]
# The same, but each tensor is a pair: its copy on the host, and the device it belongs on.
_Kept = dict[str, dict[int, Any]]


class LayerState:
    """The state of one layer after `tokens` tokens, with copies kept at earlier positions.

    Whoever runs the layer changes `parts` in place and then calls `advance`.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self.parts: Parts = {}
        self._kept: dict[int, _Kept] = {}
        # The position whose copy `settle` has yet to restore; None if the state is in place.
        self._wanted: int | None = None

    def adopt(self, parts: Parts) -> None:
        """Starts from the parts of a fresh layer: its state before the first token."""
        self.parts = parts
        self._kept[0] = _copied(parts)

    def advance(self, tokens: int) -> None:
        """Records that the layer has run, and that it has now seen `tokens` tokens in all."""
        self.tokens = tokens

    def keep(self) -> None:
        """Keeps a copy of the current state to go back to."""
        if self.tokens not in self._kept:
            self._kept[self.tokens] = _copied(self.parts)

    def branch(self) -> LayerState:
        """An independent state that starts from this one and shares its kept copies."""
        self.settle()
        other = LayerState()
        other.tokens = self.tokens
        other.parts = _restored(_copied(self.parts))
        other._kept = dict(self._kept)
        return other

    @property
    def kept_parts(self) -> dict[int, Parts]:
        """Kept copies by position, with tensors on the host; callers must not change them."""
        return {
            at: {
                name: {i: _tensor(value) for i, value in values.items()}
                for name, values in kept.items()
            }
            for at, kept in self._kept.items()
        }

    def restore(self, kept: dict[int, Parts], tokens: int, device: torch.device) -> None:
        """Adopts kept copies, and goes to one of them.

        Args:
            kept: copies by position, as `kept_parts` returns them.
            tokens: position to go to.
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
        """A copy of the current state, for `put_back`."""
        self.settle()
        return {
            name: {i: v.clone() if isinstance(v, Tensor) else v for i, v in values.items()}
            for name, values in self.parts.items()
        }

    def put_back(self, parts: Parts, tokens: int) -> None:
        """Restores a copy that `now` made. The copy becomes the state: use it only once."""
        self._become(parts, tokens)

    @property
    def kept_at(self) -> frozenset[int]:
        """Positions that `go_to` can return to."""
        return frozenset(self._kept) | {0}

    def forget(self, tokens: int) -> None:
        """Drops the copy kept at a position."""
        if tokens and tokens != self._wanted:
            self._kept.pop(tokens, None)

    def go_to(self, tokens: int) -> None:
        """Goes back to a kept copy, and drops all later copies.

        Raises:
            KeyError: no copy is kept at this position.
        """
        self.give_up(tokens)
        self.settle()

    def give_up(self, tokens: int) -> None:
        """`go_to` without allocating, for use after a failure; `settle` restores the parts.

        Raises:
            KeyError: no copy is kept at this position.
        """
        if self.parts and tokens not in self._kept:
            raise KeyError(tokens)
        self.tokens, self._wanted = tokens, tokens
        for later in [at for at in self._kept if at > tokens]:
            del self._kept[later]

    def settle(self) -> None:
        """Restores the parts after `give_up`. Must be called before the layer runs again."""
        if self._wanted is None:
            return
        self._become(_restored(self._kept[self._wanted]) if self.parts else {}, self._wanted)

    def _become(self, parts: Parts, tokens: int) -> None:
        for name, values in parts.items():
            # In place, because a transformers cache holds the same dictionaries.
            self.parts[name].clear()
            self.parts[name].update(values)
        self.tokens, self._wanted = tokens, None

    @property
    def state_bytes(self) -> int:
        """Bytes of the current state."""
        return _bytes(self.parts)

    @property
    def kept_bytes(self) -> int:
        """Bytes of the kept copies, on the host."""
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
