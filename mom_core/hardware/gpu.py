"""The device's memory as its driver and torch report it: NVIDIA, AMD (ROCm), Apple (MPS).

Nothing here allocates on the device, and every reading may be made from any thread.
"""

from __future__ import annotations

from collections.abc import Callable

import torch


class Card:
    """A device of torch's "cuda" kind: NVIDIA, or AMD, where torch's names are the same.

    Args:
        used: bytes in use on the whole card, by every program.
        name: shown to people.
        total_bytes: the card's memory.
    """

    device_type = "cuda"

    def __init__(self, used: Callable[[], int], name: str, total_bytes: int) -> None:
        self._used = used
        self.name = name
        self.total_bytes = total_bytes

    def used_bytes(self) -> int:
        """Used on the whole card, by every program."""
        return self._used()

    def allocated_bytes(self) -> int:
        """Bytes of this process's tensors."""
        return torch.cuda.memory_allocated()

    def reserved_bytes(self) -> int:
        """Bytes torch holds for this process, those kept for later tensors included."""
        return torch.cuda.memory_reserved()

    def peak_bytes(self) -> int:
        """Highest bytes of this process's tensors."""
        return torch.cuda.max_memory_allocated()

    def reset_peak(self) -> None:
        """The peak counts from now on."""
        torch.cuda.reset_peak_memory_stats()


class MetalCard(Card):
    """Apple's GPU; torch keeps no peak there, so the highest reading stands in for it."""

    device_type = "mps"

    def __init__(self) -> None:
        total_bytes = int(torch.mps.recommended_max_memory())
        super().__init__(torch.mps.driver_allocated_memory, "Apple GPU", total_bytes)
        self._peak_bytes = 0

    def allocated_bytes(self) -> int:
        """Bytes of this process's tensors."""
        allocated_bytes = int(torch.mps.current_allocated_memory())
        self._peak_bytes = max(self._peak_bytes, allocated_bytes)
        return allocated_bytes

    def reserved_bytes(self) -> int:
        """Bytes the driver holds for this process."""
        return int(torch.mps.driver_allocated_memory())

    def peak_bytes(self) -> int:
        """Highest bytes that a reading found."""
        return max(self._peak_bytes, self.allocated_bytes())

    def reset_peak(self) -> None:
        """The peak counts from now on."""
        self._peak_bytes = 0


def find_card() -> Card | None:
    """The device torch would use, or None where there is none."""
    if torch.backends.mps.is_available():
        return MetalCard()
    if not torch.cuda.is_available():
        return None
    index = torch.cuda.current_device()
    properties = torch.cuda.get_device_properties(index)
    if torch.version.hip is not None:

        def used() -> int:
            free_bytes, total_bytes = torch.cuda.mem_get_info(index)
            return total_bytes - free_bytes

        return Card(used, properties.name, int(properties.total_memory))
    import pynvml

    pynvml.nvmlInit()
    try:
        # By uuid: CUDA_VISIBLE_DEVICES may have renumbered the cards.
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}")
    except pynvml.NVMLError:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    return Card(
        lambda: int(pynvml.nvmlDeviceGetMemoryInfo(handle).used),
        properties.name,
        int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
    )


def device_free_bytes(device: torch.device, cap_bytes: int | None) -> int:
    """What this process may still take of a CUDA device.

    Args:
        device: one of type "cuda".
        cap_bytes: the most this process may hold there; None for no limit.
    """
    free_bytes, _ = torch.cuda.mem_get_info(device)
    allocated_bytes = torch.cuda.memory_allocated(device)
    # What torch keeps for later is free for us.
    free_bytes += torch.cuda.memory_reserved(device) - allocated_bytes
    return free_bytes if cap_bytes is None else min(free_bytes, cap_bytes - allocated_bytes)
