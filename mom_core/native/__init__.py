"""C kernels for the CPU, compiled on this machine if it has a compiler.

Decoding uses the `*_rows.c` files; prefill in bf16 uses `attend_chunk.c` for attention.

The kernels only add speed. Without a compiler, or if the compilation or the check against torch
fails, `kernels()` is None and torch's own kernels are used.

Source: ours.
"""

from __future__ import annotations

import contextlib
import functools
import subprocess
from collections.abc import Iterator
from contextvars import ContextVar

from mom_core.native.build import compiled_library
from mom_core.native.check import agrees_with_torch
from mom_core.native.library import Kernels

_is_off: ContextVar[bool] = ContextVar("native kernels are off", default=False)


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """Turns the kernels off inside the block: they read addresses, and fake tensors have none."""
    before = _is_off.set(True)
    try:
        yield
    finally:
        _is_off.reset(before)


def kernels() -> Kernels | None:
    """The kernels, compiled on first use; None if they are off or unavailable."""
    return None if _is_off.get() else built_kernels()


@functools.cache
def built_kernels() -> Kernels | None:
    """The kernels of this process, even while they are off; None if they are unavailable."""
    try:
        built = Kernels(compiled_library())
        return built if agrees_with_torch(built) else None
    except (OSError, RuntimeError, subprocess.SubprocessError, AttributeError):
        return None
