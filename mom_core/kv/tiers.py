"""Tiers: the places keys, values and hidden states can live, and how memory is taken there.

*Device* is where the model computes (a GPU, or the CPU when there is none), *host* is CPU memory.
On a machine without a GPU both are the same memory, but a tier asked for is still kept apart, so
that the host tier's code runs, and is tested, everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

TierName = Literal["device", "host"]

# The pinned allocator rounds every request up to a power of two, so pinned buffers are cut into
# pieces of exactly this size; of 64 MiB only the last of a layer is partly empty.
_PINNED_PIECE_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class Tier:
    """One place for tensors.

    Args:
        name: "device" or "host".
        device: torch device of tensors on this tier.
        is_pinned: whether memory is page-locked, so that a GPU can copy it in the background.
    """

    name: TierName
    device: torch.device
    is_pinned: bool = False

    def empty(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """An uninitialised tensor on this tier."""
        return torch.empty(shape, dtype=dtype, device=self.device, pin_memory=self.is_pinned)

    def piece_tokens(self, tokens: int, bytes_per_token: int) -> int:
        """How many of `tokens` one buffer should hold, given the bytes one of its rows takes."""
        if not self.is_pinned:
            return tokens
        return max(1, min(tokens, _PINNED_PIECE_BYTES // bytes_per_token))


def device_tier(device: torch.device) -> Tier:
    """The tier where the model computes."""
    return Tier("device", device)


def host_tier(device: torch.device) -> Tier:
    """CPU memory, pinned when `device` is a CUDA device that copies to and from it."""
    return Tier("host", torch.device("cpu"), is_pinned=device.type == "cuda")
