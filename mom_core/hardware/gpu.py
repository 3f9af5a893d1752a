"""The GPU's memory, as its driver and torch report it: NVIDIA, AMD (ROCm), Apple (MPS).

Nothing here allocates on the device, and any thread may take a reading.
"""

from __future__ import annotations

from collections.abc import Callable

import torch


class Card:
    """A GPU of torch's "cuda" type: NVIDIA, or AMD, for which torch uses the same names.

    Args:
        used: function that returns the bytes in use on the whole card, by all programs.
        name: name shown to people.
        total_bytes: memory of the card.
    """

    device_type = "cuda"

    def __init__(self, used: Callable[[], int], name: str, total_bytes: int) -> None:
        self._used = used
        self.name = name
        self.total_bytes = total_bytes

    def used_bytes(self) -> int:
        """Bytes in use on the whole card, by all programs."""
        return self._used()

    def allocated_bytes(self) -> int:
        """Bytes of this process's tensors."""
        return torch.cuda.memory_allocated()

    def reserved_bytes(self) -> int:
        """Bytes that torch holds for this process, including what it caches for later tensors."""
        return torch.cuda.memory_reserved()

    def peak_bytes(self) -> int:
        """Highest number of bytes in this process's tensors since the last reset."""
        return torch.cuda.max_memory_allocated()

    def reset_peak(self) -> None:
        """Restarts the peak from now."""
        torch.cuda.reset_peak_memory_stats()


class MetalCard(Card):
    """Apple's GPU. Torch records no peak there, so the highest reading serves as the peak."""

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
        """Bytes that the driver holds for this process."""
        return int(torch.mps.driver_allocated_memory())

    def peak_bytes(self) -> int:
        """Highest reading of `allocated_bytes` since the last reset."""
        return max(self._peak_bytes, self.allocated_bytes())

    def reset_peak(self) -> None:
        """Restarts the peak from now."""
        self._peak_bytes = 0


def find_card() -> Card | None:
    """The GPU that torch would use; None if there is none."""
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
    """Bytes that this process can still allocate on a GPU.

    Args:
        device: device of type "cuda".
        cap_bytes: the most bytes this process may hold there; None for no limit.
    """
    free_bytes, _ = torch.cuda.mem_get_info(device)
    allocated_bytes = torch.cuda.memory_allocated(device)
    # Memory that torch caches is free for us.
    free_bytes += torch.cuda.memory_reserved(device) - allocated_bytes
    return free_bytes if cap_bytes is None else min(free_bytes, cap_bytes - allocated_bytes)
