"""Out of memory: which memory an error means, what can be freed at once, and where to move.

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
# Messages of torch's CPU and pinned-memory allocators, which have no exception of their own.
_HOST_IS_FULL_SIGNS = ("DefaultCPUAllocator", "CUDA error: out of memory")


def full_memory(error: BaseException) -> FullMemory | None:
    """The memory that an error reports as full; None for any other error."""
    if isinstance(error, torch.OutOfMemoryError):
        return "device"
    if isinstance(error, MemoryError):
        return "host"
    if isinstance(error, RuntimeError) and any(sign in str(error) for sign in _HOST_IS_FULL_SIGNS):
        return "host"
    return None


def give_back_caches() -> None:
    """Frees memory that is only cached for reuse."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def takes_of(tier: Tier, full: FullMemory, device: torch.device) -> bool:
    """Whether a tier's tensors use the memory that is full; without a GPU the device is the host.

    Args:
        tier: the tier in question.
        full: the memory that is full.
        device: where the model computes.
    """
    if tier.files is not None:
        return False
    return tier.device == device if full == "device" else tier.device.type == "cpu"


def tier_below(
    tier: Tier, tiers: Sequence[Tier], full: FullMemory, device: torch.device
) -> Tier | None:
    """The next tier down that does not use the memory that is full; None if there is none.

    Args:
        tier: the tier to move tensors away from.
        tiers: all tiers, from the fastest to the largest.
        full: the memory that is full.
        device: where the model computes.
    """
    if not takes_of(tier, full, device):
        return None
    names = [each.name for each in tiers]
    below = tiers[names.index(tier.name) + 1 :] if tier.name in names else ()
    return next((each for each in below if not takes_of(each, full, device)), None)


@contextmanager
def memory_errors_as_sentences() -> Iterator[None]:
    """Turns running out of memory, on the device or the host, into an `OutOfMemory` error."""
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
    """The error for host memory that is full."""
    return OutOfMemory(
        "This machine's memory is full. Leave out documents, close other programs, or choose a "
        "smaller model."
    )
