"""Bytes of every storage by tier and kind, followed by a dispatch mode while code runs."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, get_args

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mom_core.config import TierName

_Kind = TypeVar("_Kind", bound=str)


@dataclass(frozen=True, slots=True, kw_only=True)
class TierBytes(Generic[_Kind]):
    """What is held on each tier.

    Args:
        device: bytes by kind.
        host: the same of the host.
        disk: the same of the disk.
    """

    device: dict[_Kind, int]
    host: dict[_Kind, int]
    disk: dict[_Kind, int]

    @property
    def device_bytes(self) -> int:
        """On the device in all."""
        return sum(self.device.values())

    @property
    def host_bytes(self) -> int:
        """On the host in all."""
        return sum(self.host.values())

    @property
    def disk_bytes(self) -> int:
        """On the disk in all."""
        return sum(self.disk.values())


Kind = Literal["weights", "KV", "hidden", "activations", "logits", "ids"]
Phase = Literal["load", "prefill", "decode"]
BytesByKind = dict[Kind, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment(TierBytes[Kind]):
    """The highest use within one step of a run, each tier's when that tier held most.

    Args:
        phase: what the run was doing.
        layer: that was running, None between layers.
    """

    phase: Phase
    layer: int | None


@dataclass(slots=True)
class _Storage:
    n_bytes: int
    tier: TierName
    kind: Kind
    watch: weakref.ref[Any]


class MemoryTracker(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    """Bytes of all storages that come into being inside, until they are gone."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._storages: dict[int, _Storage] = {}
        self._now: dict[TierName, BytesByKind] = {place: {} for place in get_args(TierName)}
        self._total: dict[TierName, int] = dict.fromkeys(get_args(TierName), 0)
        self._high: dict[TierName, int] = dict(self._total)
        self._high_by_kind: dict[TierName, BytesByKind] = {
            place: {} for place in get_args(TierName)
        }
        self._place: tuple[TierName, Kind] = ("device", "activations")
        self._phase: Phase = "load"
        self._layer: int | None = None
        self.timeline: list[Moment] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor):
                self._add(value)
        return result

    def step(self, phase: Phase, layer: int | None = None) -> None:
        """What follows belongs to this phase and layer; what came before is one `Moment`."""
        self.timeline.append(
            Moment(
                phase=self._phase,
                layer=self._layer,
                device=self._high_by_kind["device"],
                host=self._high_by_kind["host"],
                disk=self._high_by_kind["disk"],
            )
        )
        self._phase, self._layer = phase, layer
        for tier, now in self._now.items():
            self._high[tier] = self._total[tier]
            self._high_by_kind[tier] = dict(now)

    @contextmanager
    def creating(self, tier: TierName, kind: Kind) -> Iterator[None]:
        """New storages inside lie on this tier and are of this kind."""
        before, self._place = self._place, (tier, kind)
        try:
            yield
        finally:
            self._place = before

    def label(self, tensor: Tensor, kind: Kind, tier: TierName | None = None) -> None:
        """A storage's kind, and its tier if it is given, are these from now on."""
        self._add(tensor)
        storage = self._storages[tensor.untyped_storage()._cdata]
        self._count(storage.tier, storage.kind, -storage.n_bytes)
        storage.kind, storage.tier = kind, tier or storage.tier
        self._count(storage.tier, storage.kind, storage.n_bytes)

    def adopt(self, model: torch.nn.Module, tier: TierName = "device") -> None:
        """Counts a model's parameters and buffers as weights."""
        for tensor in [*model.parameters(), *model.buffers()]:
            self.label(tensor, "weights", tier)

    @property
    def phase(self) -> Phase:
        """What is running."""
        return self._phase

    def spike(self, device_bytes: int) -> None:
        """Counts activations that come and go at once, known from a step that was run before."""
        self._count("device", "activations", device_bytes)
        self._count("device", "activations", -device_bytes)

    @property
    def device_bytes(self) -> int:
        """On the device now."""
        return self._total["device"]

    @property
    def device_high_bytes(self) -> int:
        """The most on the device since the last `step`."""
        return self._high["device"]

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        tier, kind = self._place

        def gone(_: object) -> None:
            known = self._storages.pop(key)
            self._count(known.tier, known.kind, -known.n_bytes)

        n_bytes = storage.nbytes()
        self._storages[key] = _Storage(n_bytes, tier, kind, weakref.ref(storage, gone))
        self._count(tier, kind, n_bytes)

    def _count(self, tier: TierName, kind: Kind, n_bytes: int) -> None:
        now = self._now[tier]
        now[kind] = now.get(kind, 0) + n_bytes
        self._total[tier] += n_bytes
        # At the same height the newest snapshot counts: bytes get their kind afterwards.
        if self._total[tier] >= self._high[tier]:
            self._high[tier] = self._total[tier]
            self._high_by_kind[tier] = dict(now)
