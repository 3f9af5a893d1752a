"""Weights that do not fit the device: their home is the host, and each layer's come when it runs.

A layer's weights lie at home in one block, so that they come in one transfer, into one of two
blocks on the device that take turns: while a layer computes, the next one's weights are on their
way. Layer-streaming prefill needs each layer once for a whole prompt; decoding needs all for each
token. A weight is on the device only while its layer runs; before and after, it is at home.

It has its own transfer, not accelerate's hooks: those bring a module's weights again for each
call (each chunk of a prompt), when it begins, and wait for them.

Source: ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mom_core.errors import UnsupportedModel
from mom_core.kv.tiers import Tier
from mom_core.kv.transfer import Lane

# Kernels want weights to begin at such addresses.
_ALIGNED_BYTES = 256


@dataclass(slots=True)
class _Weight:
    """A parameter or buffer of a layer.

    Args:
        tensor: the model's own; its `data` is put elsewhere and back.
        found_on: the device it was on when streaming began.
        start: where its bytes begin in the layer's block.
    """

    tensor: Tensor
    found_on: torch.device
    start: int

    def in_block(self, block: Tensor) -> Tensor:
        """Its place in a block of the layer's bytes."""
        place = block[self.start : self.start + self.tensor.nbytes]
        return place.view(self.tensor.dtype).view(self.tensor.shape)


@dataclass(slots=True)
class _Slot:
    """One of the two blocks on the device.

    Args:
        block: uint8.
        layer: whose weights are in it or on their way.
        arrived: when they are there.
    """

    block: Tensor
    layer: int | None = None
    arrived: torch.cuda.Event | None = None


class WeightStream:
    """The weights of a model's layers, at home on the host or the disk.

    Args:
        layers: decoder layers, run in this order.
        device: where the model computes.
        home: tier on which the weights live.

    Raises:
        UnsupportedModel: weights are of a kind that cannot be moved as plain bytes.
        OutOfMemory: the home has no room; the model is as it was.
    """

    def __init__(self, layers: Sequence[nn.Module], device: Tier, home: Tier) -> None:
        self.home = home
        self._up = Lane(device.device)
        self._device = device
        self._weights = [_weights(layer) for layer in layers]
        self._homes: list[Tensor] = []
        self._slots: list[_Slot] = []
        try:
            for weights in self._weights:
                block = home.empty(_block_bytes(weights), dtype=torch.uint8)
                for weight in weights:
                    weight.in_block(block).copy_(weight.tensor)
                for weight in weights:
                    weight.tensor.data = weight.in_block(block)
                home.drop(block)
                self._homes.append(block)
        except BaseException:
            self.close()
            raise

    @property
    def home_bytes(self) -> int:
        """Bytes of the weights at home."""
        return sum(block.nbytes for block in self._homes)

    @property
    def device_bytes(self) -> int:
        """Bytes of the two blocks on the device."""
        return sum(slot.block.nbytes for slot in self._slots)

    @contextmanager
    def using(self, layer: int) -> Iterator[None]:
        """The layer's weights are on the device inside; the next layer's begin to come."""
        slot = self._slot_of(layer)
        self._up.compute_after(slot.arrived)
        self._slot_of((layer + 1) % len(self._homes), beside=slot)
        for weight in self._weights[layer]:
            weight.tensor.data = weight.in_block(slot.block)
        try:
            yield
        finally:
            for weight in self._weights[layer]:
                weight.tensor.data = weight.in_block(self._homes[layer])

    def close(self, device: torch.device | None = None) -> None:
        """Puts the weights into memory of their own, on a device or where they were found."""
        self._up.synchronize()
        for weights, block in zip(self._weights, self._homes, strict=False):
            for weight in weights:
                weight.tensor.data = weight.in_block(block).to(device or weight.found_on, copy=True)
        self._homes.clear()
        self._slots.clear()

    def _slot_of(self, layer: int, beside: _Slot | None = None) -> _Slot:
        """The slot with the layer's weights, on their way at least.

        Args:
            layer: whose.
            beside: the slot that is in use.
        """
        for slot in self._slots:
            if slot.layer == layer:
                return slot
        if len(self._slots) < 2:
            largest_bytes = max(block.nbytes for block in self._homes)
            self._slots.append(_Slot(self._device.empty(largest_bytes, dtype=torch.uint8)))
            slot = self._slots[-1]
        else:
            slot = next(slot for slot in self._slots if slot is not beside)
        home = self._homes[layer]
        # What was computed with the weights that were in it comes first.
        self._up.after_compute()
        with self._up.using():
            slot.block[: home.nbytes].copy_(home, non_blocking=self.home.is_pinned)
        self.home.drop(home)
        slot.layer, slot.arrived = layer, self._up.mark()
        return slot


def is_plain(tensor: Tensor) -> bool:
    """Whether a weight is an ordinary tensor, not a quantised one."""
    return type(tensor.data) is Tensor and type(tensor) in (Tensor, nn.Parameter)


def _weights(layer: nn.Module) -> list[_Weight]:
    weights: list[_Weight] = []
    end = 0
    # A tensor that two modules share is moved once, and both see it.
    tensors = {id(t): t for t in [*layer.parameters(), *layer.buffers()]}
    for tensor in tensors.values():
        if not is_plain(tensor):
            raise UnsupportedModel(
                f"The weights of {type(layer).__name__} are quantised ({type(tensor).__name__}), "
                'and can only be kept on the device: use weights="device", or a smaller model.'
            )
        weights.append(_Weight(tensor, tensor.device, end))
        end += -(-tensor.nbytes // _ALIGNED_BYTES) * _ALIGNED_BYTES
    return weights


def _block_bytes(weights: list[_Weight]) -> int:
    last = weights[-1]
    return last.start + last.tensor.nbytes
