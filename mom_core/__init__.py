"""mom_core: exact long-context inference in little memory, for any transformers decoder.

The flow: token ids -> `Engine.prefill` (layer by layer, mini-sequence by mini-sequence, each
layer's keys and values kept in a `KVStore`) -> `Engine.generate` -> typed events.

Shape letters used in every docstring: **B** batch, **S** sequence, **T** past + new, **L** layers,
**H** query heads, **G** KV heads, **D** head dim, **E** hidden, **F** MLP width, **V** vocabulary,
**M** mini-sequences, **C** tokens per mini-sequence (chunk size).

Names are loaded when first used, so importing `mom_core` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mom_core.config import EngineConfig, SamplingConfig
    from mom_core.context import Context
    from mom_core.engine import Engine
    from mom_core.errors import (
        ContextTooLong,
        DocumentError,
        InvalidSetting,
        ModelUnavailable,
        MomError,
        OutOfMemory,
        SnapshotUnusable,
        UnsupportedModel,
    )
    from mom_core.events import Adapted, Event, Finished, MemorySample, PrefillProgress, Token
    from mom_core.hardware.meter import Meter
    from mom_core.mini_sequence import memory_saving
    from mom_core.model.seam.attention import mom_attention
    from mom_core.verify import ExactnessReceipt

_HOME = {
    "Adapted": "events",
    "Context": "context",
    "ContextTooLong": "errors",
    "DocumentError": "errors",
    "Engine": "engine",
    "EngineConfig": "config",
    "Event": "events",
    "ExactnessReceipt": "verify",
    "Finished": "events",
    "InvalidSetting": "errors",
    "MemorySample": "events",
    "Meter": "hardware.meter",
    "ModelUnavailable": "errors",
    "MomError": "errors",
    "OutOfMemory": "errors",
    "PrefillProgress": "events",
    "SamplingConfig": "config",
    "SnapshotUnusable": "errors",
    "Token": "events",
    "UnsupportedModel": "errors",
    "memory_saving": "mini_sequence",
    "mom_attention": "model.seam.attention",
}

__all__ = [
    "Adapted",
    "Context",
    "ContextTooLong",
    "DocumentError",
    "Engine",
    "EngineConfig",
    "Event",
    "ExactnessReceipt",
    "Finished",
    "InvalidSetting",
    "MemorySample",
    "Meter",
    "ModelUnavailable",
    "MomError",
    "OutOfMemory",
    "PrefillProgress",
    "SamplingConfig",
    "SnapshotUnusable",
    "Token",
    "UnsupportedModel",
    "memory_saving",
    "mom_attention",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
