"""Makes the C library keep memory that tensors free, for models on the CPU.

glibc returns free memory at the top of its heap to the system once it exceeds a threshold. The
threshold grows with the largest mapped block that was freed. A model that runs in mini-sequences
has only small temporaries, so every operation returned their memory and then faulted it in and
zeroed it again: 3 GB of page faults for a prompt of 8,000 tokens, a tenth of its reading time
(docs/log.md).

Source: ours; the thresholds are described in mallopt(3), M_TRIM_THRESHOLD.
"""

from __future__ import annotations

import functools

import torch

# Just below 32 MiB, the largest block that still raises glibc's thresholds.
_BLOCK_BYTES = 32 * 2**20 - 2**16


@functools.cache
def keep_freed_memory() -> None:
    """Makes glibc keep up to 64 MiB of freed memory for later operations; once per process.

    Freeing one large block is enough, as any run with larger tensors would do. With other C
    libraries this has no effect.
    """
    torch.empty(_BLOCK_BYTES, dtype=torch.uint8)
