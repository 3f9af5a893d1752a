"""Readings of the memory meter, made up."""

from __future__ import annotations

from mom_core.events import MemorySample

GIB = 2**30


def sample(*, has_card: bool) -> MemorySample:
    return MemorySample(
        time_seconds=0.0,
        device_name="Card" if has_card else None,
        device_used_bytes=6 * GIB if has_card else None,
        device_total_bytes=24 * GIB if has_card else None,
        device_peak_bytes=7 * GIB if has_card else None,
        device_weights_bytes=4 * GIB if has_card else 0,
        device_kv_bytes=GIB if has_card else 0,
        device_activations_bytes=0,
        host_used_bytes=2 * GIB,
        host_available_bytes=12 * GIB,
        host_total_bytes=16 * GIB,
        host_peak_bytes=3 * GIB,
        host_weights_bytes=0 if has_card else GIB,
        host_kv_bytes=GIB // 2,
        host_activations_bytes=0,
    )
