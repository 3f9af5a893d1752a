"""Where attention finds keys and values during an answer, if they live on the host or the disk.

There are three modes, and all give the same answer:

- *host*: the CPU attends to the KV where it lies. Only queries and partial results travel.
- *device*: all KV is copied to the device once, and attention runs there.
- *stream*: for every token, each layer's KV is copied to the device in turn, into one of two
  buffers, one layer ahead of the computation.

In every mode, new tokens are also appended to the KV's home. The home is therefore always
complete: nothing has to be saved when the answer ends, and the device copy can be dropped at any
time.

Source: "device" is the paper's residual KV at decode (MOM, arXiv:2504.12526); the others are ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mom_core.attention import Segment
from mom_core.config import DecodeMode
from mom_core.kv.state import LayerState
from mom_core.kv.store import KVStore, LayerKV
from mom_core.kv.tiers import device_tier
from mom_core.kv.transfer import KVSink, Lanes, LayerStage, StageBuffer
from mom_core.native.library import FEW_ROWS


class DecodeKV:
    """The KV of one answer: what attention appends to and reads, layer by layer.

    Args:
        store: home of all keys and values.
        mode: see the module. If the store is on the device already, the mode makes no difference.
        device: where the model computes.
        windows: window W of each layer; None for full attention.
        new_tokens: the most tokens that will be appended.
    """

    def __init__(
        self,
        store: KVStore,
        mode: DecodeMode,
        device: torch.device,
        windows: Sequence[int | None],
        new_tokens: int,
    ) -> None:
        self._lanes = Lanes(device)
        self._buffers: list[StageBuffer] = []
        self.layers: list[KVSink | LayerState] = list(store.layers)
        if store.tier.name == "device" or mode == "host":
            return
        homes = {i: home for i, home in enumerate(store.layers) if isinstance(home, LayerKV)}

        def buffer(indices: Sequence[int]) -> StageBuffer:
            held = max(last_tokens(windows[i], homes[i].tokens) for i in indices)
            made = StageBuffer(device_tier(device), held + new_tokens, self._lanes)
            self._buffers.append(made)
            return made

        try:
            if mode == "device":
                for index, home in homes.items():
                    seen = last_tokens(windows[index], home.tokens)
                    stage = LayerStage(home, buffer([index]), self._lanes, seen)
                    self.layers[index] = stage
            elif homes:
                order = list(homes)
                turns = _Turns(homes, windows, [buffer(order), buffer(order)], self._lanes)
                for index in order:
                    self.layers[index] = _StreamedLayer(index, homes[index], turns)
        except BaseException:
            # No copy may still be running into memory that is freed now.
            self.close()
            raise

    @property
    def used_bytes(self) -> int:
        """Bytes taken on the device."""
        return sum(buffer.used_bytes for buffer in self._buffers)

    def close(self) -> None:
        """Waits until the home is complete. Device memory is freed with this object."""
        self._lanes.synchronize()


def last_tokens(window: int | None, tokens: int) -> int:
    """The number of a layer's latest tokens that new tokens can see, even after a rollback.

    Args:
        window: W; None for full attention.
        tokens: tokens that the layer holds.
    """
    return tokens if window is None else min(tokens, window + FEW_ROWS)


class _Turns:
    """Two device buffers that layers use in turn, one layer ahead of the computation."""

    def __init__(
        self,
        homes: dict[int, LayerKV],
        windows: Sequence[int | None],
        buffers: list[StageBuffer],
        lanes: Lanes,
    ) -> None:
        self._homes = homes
        self._windows = windows
        self._buffers = buffers
        self._lanes = lanes
        order = list(homes)
        self._following = dict(zip(order, [*order[1:], order[0]], strict=True))
        self._coming: tuple[int, LayerStage] | None = (order[0], self._bring(order[0]))

    def take(self, index: int) -> LayerStage:
        """The layer's stage. Its copy has already started if layers run in order."""
        coming, self._coming = self._coming, None
        return coming[1] if coming is not None and coming[0] == index else self._bring(index)

    def begin_following(self, index: int) -> None:
        """Starts copying the next layer's KV; this layer's new tokens must be home."""
        following = self._following[index]
        self._coming = (following, self._bring(following))

    def _bring(self, index: int) -> LayerStage:
        self._buffers.reverse()
        home = self._homes[index]
        seen = last_tokens(self._windows[index], home.tokens)
        return LayerStage(home, self._buffers[0], self._lanes, seen)


class _StreamedLayer:
    """One layer's KV, on the device only while the layer runs."""

    def __init__(self, index: int, home: LayerKV, turns: _Turns) -> None:
        self._index = index
        self._home = home
        self._turns = turns
        self._stage: LayerStage | None = None

    @property
    def tokens(self) -> int:
        return self._home.tokens

    def append(self, keys: Tensor, values: Tensor) -> None:
        self._stage = self._turns.take(self._index)
        self._stage.append(keys, values)
        self._turns.begin_following(self._index)

    def segments(self) -> list[Segment]:
        # Attention asks once, right after `append`. The buffer then belongs to another layer.
        stage, self._stage = self._stage, None
        return self._home.segments() if stage is None else stage.segments()
