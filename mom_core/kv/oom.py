"""Which memory is full, when an error says that one is, and what can be given back at once.

Source: ours.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch

from mom_core.errors import OutOfMemory
from mom_core.kv.tiers import Tier

FullMemory = Literal["device", "host"]
# What torch says when CPU memory, or page-locked CPU memory, cannot be had: neither allocator
# has an exception of its own.
_HOST_IS_FULL_SIGNS = ("DefaultCPUAllocator", "CUDA error: out of memory")


def full_memory(error: BaseException) -> FullMemory | None:
    """Which memory had no room, None if the error says something else."""
    if isinstance(error, torch.OutOfMemoryError):
        return "device"
    if isinstance(error, MemoryError):
        return "host"
    if isinstance(error, RuntimeError) and any(sign in str(error) for sign in _HOST_IS_FULL_SIGNS):
        return "host"
    return None


def give_back_caches() -> None:
    """Frees what is only held for reuse."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def takes_of(tier: Tier, full: FullMemory, device: torch.device) -> bool:
    """Whether a tier's tensors take of that memory; without a GPU the device is the host.

    Args:
        tier: asked about.
        full: the memory.
        device: where the model computes.
    """
    if tier.files is not None:
        return False
    return tier.device == device if full == "device" else tier.device.type == "cpu"


def tier_below(
    tier: Tier, tiers: Sequence[Tier], full: FullMemory, device: torch.device
) -> Tier | None:
    """The next tier down that takes nothing of the memory that is full.

    Args:
        tier: whose tensors are to go.
        tiers: from fast to large.
        full: the memory.
        device: where the model computes.
    """
    if not takes_of(tier, full, device):
        return None
    names = [each.name for each in tiers]
    below = tiers[names.index(tier.name) + 1 :] if tier.name in names else ()
    return next((each for each in below if not takes_of(each, full, device)), None)


@contextmanager
def memory_errors_as_sentences() -> Iterator[None]:
    """Out of memory, on the device or the host, as a `MomError`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            "The GPU's memory is full. Keep keys, values and hidden states on the host "
            '(offload "KV + hidden to host"), choose a smaller chunk size, or leave out '
            "documents."
        ) from error
    except (MemoryError, RuntimeError) as error:
        if full_memory(error) is None:
            raise
        raise host_is_full() from error


def host_is_full() -> OutOfMemory:
    """The sentence for host memory that is full."""
    return OutOfMemory(
        "This machine's memory is full. Leave out documents, close other programs, or choose a "
        "smaller model."
    )
