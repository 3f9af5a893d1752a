"""Bytes as people read them: bytes inside the program, GiB, MiB or KiB in its sentences."""

from __future__ import annotations


def size_text(size_bytes: float) -> str:
    """Such as "17.2 GiB", "880 MiB", "3.4 MiB" or "29 KiB"."""
    if abs(size_bytes) >= 2**30:
        return f"{size_bytes / 2**30:,.1f} GiB"
    if 0 < abs(size_bytes) < 2**20 / 10:
        return f"{size_bytes / 2**10:,.0f} KiB"
    size = size_bytes / 2**20
    return f"{size:,.0f} MiB" if abs(size) >= 10 or not size else f"{size:,.1f} MiB"
