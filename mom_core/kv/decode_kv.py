"""Keys and values while an answer is written, when they live on the host or the disk.

Three ways, the same answer:

- *host*: the CPU attends to them where they lie; only queries and partial results travel.
- *device*: all are brought to the device once, and attended to there.
- *stream*: each token, each layer's come to the device in turn, one layer ahead of the
  computation, into two buffers.

In every one of them new tokens are also appended to their home, so that it stays complete,
nothing has to be saved when the answer ends, and the device's copy can be dropped at any time.

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
    """What attention appends to and reads from, layer by layer, for one answer.

    Args:
        store: the keys and values; the home of all of them.
        mode: see the module; "device" and "stream" change nothing where the store's tier is the
            device.
        device: where the model computes.
        windows: W of each layer, None for full attention.
        new_tokens: most that will be appended.
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
            # Copies into what is freed now must not be under way.
            self.close()
            raise

    @property
    def used_bytes(self) -> int:
        """Bytes taken on the device."""
        return sum(buffer.used_bytes for buffer in self._buffers)

    def close(self) -> None:
        """Waits until home is complete; the device's memory goes with this object."""
        self._lanes.synchronize()


def last_tokens(window: int | None, tokens: int) -> int:
    """Of a layer's tokens, how many the next ones can see, though a draft may be taken back."""
    return tokens if window is None else min(tokens, window + FEW_ROWS)


class _Turns:
    """Two buffers in which the layers' keys and values take turns, one layer ahead."""

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
        """The layer's stage, on its way already if layers run in their order."""
        coming, self._coming = self._coming, None
        return coming[1] if coming is not None and coming[0] == index else self._bring(index)

    def begin_following(self, index: int) -> None:
        """The layer's new tokens are home: the next layer's may come."""
        following = self._following[index]
        self._coming = (following, self._bring(following))

    def _bring(self, index: int) -> LayerStage:
        self._buffers.reverse()
        home = self._homes[index]
        seen = last_tokens(self._windows[index], home.tokens)
        return LayerStage(home, self._buffers[0], self._lanes, seen)


class _StreamedLayer:
    """One layer's keys and values, on the device only while the layer runs."""

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
        # Asked for once, right after `append`: the buffer is then another layer's.
        stage, self._stage = self._stage, None
        return self._home.segments() if stage is None else stage.segments()
