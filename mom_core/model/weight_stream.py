"""Streams weights that do not fit on the device: each layer's are copied there when it runs.

At home, on the host or the disk, each layer's weights form one block, so that one transfer copies
them. They are copied into one of two blocks on the device, which alternate: while a layer
computes, the next layer's weights are copied. Prefill needs each layer once for a whole prompt,
and decoding needs every layer for each token. A weight is on the device only while its layer runs.

This does not use accelerate's hooks, because they copy a module's weights at the start of every
call (for every chunk of a prompt), and wait for the copy.

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

# Kernels need weights to start at multiples of this.
_ALIGNED_BYTES = 256


@dataclass(slots=True)
class _Weight:
    """A parameter or buffer of a layer.

    Args:
        tensor: the model's own tensor, whose `data` is replaced while streaming.
        found_on: device it was on before streaming.
        start: offset, in bytes, in the layer's block.
    """

    tensor: Tensor
    found_on: torch.device
    start: int

    def in_block(self, block: Tensor) -> Tensor:
        """A view of the weight in a block of the layer's bytes."""
        place = block[self.start : self.start + self.tensor.nbytes]
        return place.view(self.tensor.dtype).view(self.tensor.shape)


@dataclass(slots=True)
class _Slot:
    """One of the two blocks on the device.

    Args:
        block: the block, of uint8.
        layer: layer whose weights are in the block, or being copied; None if empty.
        arrived: event after the copy; None without CUDA.
    """

    block: Tensor
    layer: int | None = None
    arrived: torch.cuda.Event | None = None


class WeightStream:
    """The weights of a model's layers, which live on the host or the disk.

    Args:
        layers: decoder layers, in the order in which they run.
        device: tier of the device where the model computes.
        home: tier where the weights live.

    Raises:
        UnsupportedModel: weights cannot be moved as plain bytes.
        OutOfMemory: the home has no room; the model is unchanged.
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
        """Inside, a layer's weights are on the device, and the next layer's are being copied."""
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
        """Ends streaming, and gives the weights their own memory again.

        Args:
            device: where the weights go; None for the devices they were on before.
        """
        self._up.synchronize()
        for weights, block in zip(self._weights, self._homes, strict=False):
            for weight in weights:
                weight.tensor.data = weight.in_block(block).to(device or weight.found_on, copy=True)
        self._homes.clear()
        self._slots.clear()

    def _slot_of(self, layer: int, beside: _Slot | None = None) -> _Slot:
        """The slot with a layer's weights, whose copy may still be running.

        Args:
            layer: index of the layer.
            beside: slot in use, which must not be overwritten; None if there is none.
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
        # Computation with the slot's previous weights must finish first.
        self._up.after_compute()
        with self._up.using():
            slot.block[: home.nbytes].copy_(home, non_blocking=self.home.is_pinned)
        self.home.drop(home)
        slot.layer, slot.arrived = layer, self._up.mark()
        return slot


def is_plain(tensor: Tensor) -> bool:
    """Whether a weight is a plain tensor, and not a quantised one."""
    return type(tensor.data) is Tensor and type(tensor) in (Tensor, nn.Parameter)


def _weights(layer: nn.Module) -> list[_Weight]:
    weights: list[_Weight] = []
    end = 0
    # A tensor that two modules share is moved only once.
    tensors = {id(t): t for t in [*layer.parameters(), *layer.buffers()]}
    for tensor in tensors.values():
        if not is_plain(tensor):
            raise UnsupportedModel(
                f"The weights of {type(layer).__name__} are quantised ({type(tensor).__name__}), "
                'and can only live on the device: use weights="device", or a smaller model.'
            )
        weights.append(_Weight(tensor, tensor.device, end))
        end += -(-tensor.nbytes // _ALIGNED_BYTES) * _ALIGNED_BYTES
    return weights


def _block_bytes(weights: list[_Weight]) -> int:
    last = weights[-1]
    return last.start + last.tensor.nbytes
