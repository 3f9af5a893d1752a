"""Kernels in C for the CPU, compiled on this machine when there is a compiler.

The `*_rows.c` are for decoding, `attend_chunk.c` for the attention of prefill in bf16.

They only make it faster: without a compiler, after a failed compilation or a failed check
against torch, `kernels()` is None and torch's own kernels are used.

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
    """Inside, torch does everything itself: the kernels read addresses, fake tensors have none."""
    before = _is_off.set(True)
    try:
        yield
    finally:
        _is_off.reset(before)


def kernels() -> Kernels | None:
    """The kernels, compiled when first asked for; None where they cannot be had."""
    return None if _is_off.get() else built_kernels()


@functools.cache
def built_kernels() -> Kernels | None:
    """`kernels` for the whole process, on or off."""
    try:
        built = Kernels(compiled_library())
        return built if agrees_with_torch(built) else None
    except (OSError, RuntimeError, subprocess.SubprocessError, AttributeError):
        return None
