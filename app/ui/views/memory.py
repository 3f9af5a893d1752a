"""The memory gauges, for the page."""

from __future__ import annotations

from typing import Any

from app import wording
from mom_core.events import MemorySample


def memory_view(sample: MemorySample) -> dict[str, Any]:
    """The gauges; none of the device where the model computes in this machine's memory."""
    return {"device": _device_gauge(sample), "host": _host_gauge(sample)}


def _device_gauge(sample: MemorySample) -> dict[str, Any] | None:
    total = sample.device_total_bytes
    if sample.device_name is None or not total:
        return None
    kinds = [
        ("weights", sample.device_weights_bytes),
        ("kv", sample.device_kv_bytes),
        ("hidden", sample.device_hidden_bytes),
        ("activations", sample.device_activations_bytes - sample.device_hidden_bytes),
        ("rest", sample.device_rest_bytes),
    ]
    used, peak = sample.device_used_bytes or 0, sample.device_peak_bytes or 0
    return _gauge(sample.device_name, kinds, used, peak, total)


def _host_gauge(sample: MemorySample) -> dict[str, Any]:
    total = sample.host_total_bytes
    others = max(0, total - sample.host_available_bytes - sample.host_used_bytes)
    kinds = [*_host_kinds(sample), ("others", others)]
    title = wording.NO_DEVICE if sample.device_name is None else ""
    used, peak = sample.host_used_bytes + others, sample.host_peak_bytes + others
    gauge = _gauge(title, kinds, used, peak, total)
    disk = sample.disk_used_bytes
    return {**gauge, "disk": wording.on_disk(disk) if disk else ""}


def _gauge(
    title: str, kinds: list[tuple[str, int]], used: int, peak: int, total: int
) -> dict[str, Any]:
    peak = max(used, peak)
    return {
        "title": title,
        "now": wording.size(used),
        "peak_text": wording.size(peak),
        "total": wording.size(total),
        "parts": _parts(kinds, total),
        "peak": percent_of(peak, total),
    }


def _host_kinds(sample: MemorySample) -> list[tuple[str, int]]:
    return [
        ("weights", sample.host_weights_bytes),
        ("kv", sample.host_kv_bytes),
        ("hidden", sample.host_hidden_bytes),
        ("activations", sample.host_activations_bytes - sample.host_hidden_bytes),
        ("rest", sample.host_rest_bytes),
    ]


def _parts(kinds: list[tuple[str, int]], total: int) -> list[list[Any]]:
    return [[kind, percent_of(size, total), wording.size(size)] for kind, size in kinds]


def percent_of(part: int, whole: int | None) -> float:
    """A share in percent, at most 100; 0 of nothing."""
    return round(100 * min(1.0, part / whole), 2) if whole else 0.0
