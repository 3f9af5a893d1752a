"""Tiers: where keys, values and hidden states can live, and how memory is allocated there.

*Device* is where the model computes: a GPU, or the CPU if there is none. *Host* is CPU memory.
*Disk* is files mapped into memory. Without a GPU, device and host are the same memory, but they
remain two tiers. The code of the host tier therefore runs, and is tested, on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mom_core.config import TierName
from mom_core.kv.mapped import MappedFiles

# A pinned buffer below this size is not split, although the allocator rounds it up.
_SMALLEST_PINNED_BYTES = 1 << 24


def pinned_piece_tokens(tokens: int, bytes_per_token: int) -> int:
    """The number of tokens that the next pinned buffer should hold.

    The pinned allocator rounds every request up to a power of two. Each buffer therefore takes the
    largest power of two that is still needed, so that only the last buffer is rounded up.

    Args:
        tokens: tokens that still need room, at least one.
        bytes_per_token: bytes of one token in the buffer.
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
        is_remote: whether a GPU must copy a tensor from there before computing with it.
        files: creates the tensors of the disk tier; None for other tiers.
    """

    name: TierName
    device: torch.device
    is_pinned: bool = False
    is_remote: bool = False
    files: MappedFiles | None = None

    def empty(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """An uninitialised tensor on this tier.

        Raises:
            OutOfMemory: the disk has no room for the tensor.
        """
        if self.files is not None:
            return self.files.empty(*shape, dtype=dtype)
        return torch.empty(shape, dtype=dtype, device=self.device, pin_memory=self.is_pinned)

    def piece_tokens(self, tokens: int, bytes_per_token: int) -> int:
        """The number of tokens that the next buffer should hold.

        Args:
            tokens: tokens that still need room, at least one.
            bytes_per_token: bytes of one token in the buffer.
        """
        if not self.is_pinned:
            return tokens
        return pinned_piece_tokens(tokens, bytes_per_token)

    def touch(self, *tensors: Tensor) -> None:
        """Marks tensors as just used. On the disk tier, pages of others may leave memory."""
        if self.files is not None:
            self.files.touch(*tensors)

    def drop(self, view: Tensor) -> None:
        """Marks a contiguous view as unused for now. On the disk tier, it may leave memory."""
        if self.files is not None:
            self.files.drop(view)


def device_tier(device: torch.device) -> Tier:
    """The tier of the device where the model computes."""
    return Tier("device", device)


def host_tier(device: torch.device) -> Tier:
    """The tier of CPU memory, pinned if `device`, where the model computes, is a GPU."""
    is_remote = device.type == "cuda"
    return Tier("host", torch.device("cpu"), is_pinned=is_remote, is_remote=is_remote)


def disk_tier(device: torch.device, files: MappedFiles) -> Tier:
    """The tier of files mapped into memory.

    Args:
        device: where the model computes.
        files: creates the tensors.
    """
    return Tier("disk", torch.device("cpu"), is_remote=device.type == "cuda", files=files)
