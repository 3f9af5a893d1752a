"""How the C library keeps what tensors free, where the CPU is the device.

glibc gives memory back to the system whenever the top of its heap is free, up to a threshold
that follows the largest block it has seen mapped. A model run in mini-sequences only has small
temporaries, so their memory went back, and was faulted in and zeroed again in every operation:
3 GB of page faults for a prompt of 8,000 tokens, a tenth of its reading time (docs/log.md).

Source: ours; the thresholds are described in mallopt(3), M_TRIM_THRESHOLD.
"""

from __future__ import annotations

import functools

import torch

# Just below the largest block that glibc lets its thresholds follow (32 MiB).
_BLOCK_BYTES = 32 * 2**20 - 2**16


@functools.cache
def keep_freed_memory() -> None:
    """Lets glibc keep up to 64 MiB of freed memory for the next operation, once a process.

    Freeing one large block is all it takes, as any run with larger tensors would; other C
    libraries do nothing of the kind, and nothing happens.
    """
    torch.empty(_BLOCK_BYTES, dtype=torch.uint8)
