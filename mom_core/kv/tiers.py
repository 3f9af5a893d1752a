"""Tiers: the places keys, values and hidden states can live, and how memory is taken there.

*Device* is where the model computes (a GPU, or the CPU when there is none), *host* is CPU memory,
*disk* is files mapped into memory. On a machine without a GPU device and host are the same
memory, but a tier asked for is still kept apart, so that the host tier's code runs, and is
tested, everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mom_core.config import TierName
from mom_core.kv.mapped import MappedFiles

# Below this a pinned buffer is taken whole, and the allocator rounds it up to a power of two.
_SMALLEST_PINNED_BYTES = 1 << 24


def pinned_piece_tokens(tokens: int, bytes_per_token: int) -> int:
    """How many of `tokens` one pinned buffer should hold.

    The pinned allocator rounds every request up to a power of two. So a buffer takes the largest
    power of two that is not above what is still wanted: few buffers, of which only the last is
    rounded up.

    Args:
        tokens: still without room, at least one.
        bytes_per_token: that one of them takes in the buffer.
    """
    wanted_bytes = tokens * bytes_per_token
    if wanted_bytes <= _SMALLEST_PINNED_BYTES:
        return tokens
    return max(1, (1 << (wanted_bytes.bit_length() - 1)) // bytes_per_token)


@dataclass(frozen=True, slots=True)
class Tier:
    """One place for tensors.

    Args:
        name: "device", "host" or "disk".
        device: torch device of tensors on this tier.
        is_pinned: whether memory is page-locked, so that a GPU can copy it in the background.
        is_remote: whether a GPU has to copy what lies there before it computes with it.
        files: what makes the tensors of the disk tier; None for any other.
    """

    name: TierName
    device: torch.device
    is_pinned: bool = False
    is_remote: bool = False
    files: MappedFiles | None = None

    def empty(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """An uninitialised tensor on this tier.

        Raises:
            OutOfMemory: the disk has no room for it.
        """
        if self.files is not None:
            return self.files.empty(*shape, dtype=dtype)
        return torch.empty(shape, dtype=dtype, device=self.device, pin_memory=self.is_pinned)

    def piece_tokens(self, tokens: int, bytes_per_token: int) -> int:
        """How many of `tokens` one buffer should hold, given the bytes one of its rows takes."""
        if not self.is_pinned:
            return tokens
        return pinned_piece_tokens(tokens, bytes_per_token)

    def touch(self, *tensors: Tensor) -> None:
        """Tensors of this tier are used now: on the disk, others may leave memory for them."""
        if self.files is not None:
            self.files.touch(*tensors)

    def drop(self, view: Tensor) -> None:
        """A contiguous view is not used for now: on the disk, it may leave memory."""
        if self.files is not None:
            self.files.drop(view)


def device_tier(device: torch.device) -> Tier:
    """The tier where the model computes."""
    return Tier("device", device)


def host_tier(device: torch.device) -> Tier:
    """CPU memory, pinned when `device` is a CUDA device that copies to and from it."""
    is_remote = device.type == "cuda"
    return Tier("host", torch.device("cpu"), is_pinned=is_remote, is_remote=is_remote)


def disk_tier(device: torch.device, files: MappedFiles) -> Tier:
    """Files mapped into memory."""
    return Tier("disk", torch.device("cpu"), is_remote=device.type == "cuda", files=files)
