"""Bytes as people read them: bytes inside the program, GiB or MiB in its sentences."""

from __future__ import annotations


def size_text(size_bytes: float) -> str:
    """Such as "17.2 GiB", "880 MiB", or "3.4 MiB"."""
    if abs(size_bytes) >= 2**30:
        return f"{size_bytes / 2**30:,.1f} GiB"
    size = size_bytes / 2**20
    return f"{size:,.0f} MiB" if abs(size) >= 10 or not size else f"{size:,.1f} MiB"
