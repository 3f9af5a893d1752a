"""What is free of a GPU's memory."""

from __future__ import annotations

import torch


def device_free_bytes(device: torch.device, cap_bytes: int | None) -> int:
    """What this process may still take of a CUDA device.

    Args:
        device: of type "cuda".
        cap_bytes: the most this process may hold there; None for no limit.
    """
    free_bytes, _ = torch.cuda.mem_get_info(device)
    allocated_bytes = torch.cuda.memory_allocated(device)
    # What torch keeps for later is free for us.
    free_bytes += torch.cuda.memory_reserved(device) - allocated_bytes
    return free_bytes if cap_bytes is None else min(free_bytes, cap_bytes - allocated_bytes)
