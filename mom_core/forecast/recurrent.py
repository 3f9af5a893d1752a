"""What a recurrent layer takes, from its own code run on tensors without contents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch._subclasses import FakeTensorMode

from mom_core.forecast.tracker import MemoryTracker
from mom_core.kv.store import KVStore
from mom_core.kv.tiers import Tier
from mom_core.model.seam.cache import segment_cache
from mom_core.model.seam.decoder import HFSeam
from mom_core.model.seam.empty import model_without_weights
from mom_core.native import without_kernels

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


# Long enough that what grows with the chunk is what counts.
_RECURRENT_CHUNKS = (1024, 2048)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrentBytes:
    """What one recurrent layer holds beyond its input, taken from simulated runs of it.

    Args:
        state_bytes: size of its state.
        first: bytes it works with at most over a chunk at the beginning of a sequence: a fixed
            part, and a part for each token of the chunk.
        further: the same over a chunk with a state before it.
    """

    state_bytes: int
    first: tuple[float, float]
    further: tuple[float, float]

    def working_bytes(self, tokens: int, *, is_first: bool) -> int:
        """The most it works with over a chunk of so many tokens."""
        fixed, per_token = self.first if is_first else self.further
        return round(fixed + per_token * tokens)


def recurrent_bytes(
    config: PretrainedConfig, dtype: torch.dtype = torch.bfloat16
) -> RecurrentBytes | None:
    """Of a model's recurrent layers, in transformers' reference code; None if it has none.

    Chunks of two lengths show what grows with the chunk and what does not.
    """
    with FakeTensorMode(), torch.no_grad():
        model = model_without_weights(config, dtype)
        recurrent = HFSeam(model).recurrent_layers
        if not recurrent:
            return None
        short, long = (_recurrent_run(model, min(recurrent), n) for n in _RECURRENT_CHUNKS)
    (short_tokens, long_tokens), lines = _RECURRENT_CHUNKS, []
    for low, high in zip(short[:2], long[:2], strict=True):
        per_token = (high - low) / (long_tokens - short_tokens)
        lines.append((low - short_tokens * per_token, per_token))
    return RecurrentBytes(state_bytes=short[2], first=lines[0], further=lines[1])


def _recurrent_run(model: PreTrainedModel, index: int, tokens: int) -> tuple[int, int, int]:
    """The most one layer works with over a first and a second chunk; the bytes of its state."""
    tracker = MemoryTracker()
    seam = HFSeam(model)
    store = KVStore(len(seam.layers), Tier("device", torch.device("cpu")), seam.recurrent_layers)
    cache = segment_cache(store.layers)
    peaks = []
    with tracker, without_kernels():
        tracker.adopt(model)
        ids = torch.zeros(1, tokens, dtype=torch.long)
        hidden, calls = seam.embed(ids, 0, cache, 2 * tokens)
        for _ in range(2):
            tracker.step("prefill", index)
            before = tracker.device_bytes
            seam.run_layer(index, hidden, calls[index])
            peaks.append(tracker.device_high_bytes - before)
    return peaks[0], peaks[1], store.states[0].state_bytes
