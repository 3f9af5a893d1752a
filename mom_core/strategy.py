"""The ways to run a long prompt that are compared: which parts of the method each one uses.

Each covers prefill and decode. `standard`, `chunked`, `mini-sequence` and `mom` answer with the
KV on the device, as published; `offload` and `layer-streaming` with the KV where it lies.

Source: MOM, arXiv:2504.12526, for all but `layer-streaming`, which is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from mom_core.config import TierName

StrategyName = Literal["standard", "chunked", "offload", "mini-sequence", "mom", "layer-streaming"]
# Where, and how, keys and values are attended to while answering: on the device, by the CPU, or on
# the device layer by layer.
DecodeWay = Literal["device", "host", "stream"]
STRATEGY_NAMES: tuple[StrategyName, ...] = get_args(StrategyName)
_KV_IN_PREFILL: dict[StrategyName, TierName] = {
    "standard": "device",
    "chunked": "device",
    "offload": "host",
    "mini-sequence": "device",
    "mom": "host",
    "layer-streaming": "host",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """One way, with its settings. `Strategy.named` fills in what is usual.

    Args:
        name: the way.
        chunk_tokens: C: of a prompt's chunk (`chunked`, `layer-streaming`) or of a mini-sequence
            of the MLP (`mini-sequence`, `mom`).
        kv: where keys and values live in prefill.
        hidden: where hidden states wait between layers (`layer-streaming`).
        decode: how keys and values are attended to while answering: on the device ("device":
            those that live elsewhere come back to it), by the CPU where they live ("host"), or
            on the device, brought layer by layer for each token ("stream").
        weights: whether all lie on the device, or come layer by layer (`layer-streaming`).
        weights_home: where those that come layer by layer live.
        logits: whether prefill gives the last token's logits or all.
        device_type: "cuda", or "cpu" where device and host are one memory.
        reserved_tokens: room for an answer that is taken ahead (`layer-streaming`).
    """

    name: StrategyName
    chunk_tokens: int
    kv: TierName
    hidden: TierName
    decode: DecodeWay
    weights: Literal["device", "stream"] = "device"
    weights_home: TierName = "host"
    logits: Literal["last", "all"] = "last"
    device_type: Literal["cuda", "cpu"] = "cuda"
    reserved_tokens: int = 1024

    @property
    def stages_kv(self) -> bool:
        """Whether one layer's keys and values are on the device beside their home elsewhere."""
        return self.kv == "host" or (self.kv == "disk" and self.device_type == "cuda")

    @classmethod
    def on_device(cls, *, chunk_tokens: int) -> Strategy:
        """Layer-streaming with everything where the model computes.

        Args:
            chunk_tokens: C.
        """
        return cls.named("layer-streaming", chunk_tokens=chunk_tokens, kv="device", hidden="device")

    def with_kv(self, tier: TierName) -> Strategy:
        """The same settings with keys and values on another tier.

        Keys and values that had to leave the device are attended to where they then lie.
        """
        if tier == self.kv:
            return self
        return replace(self, kv=tier, decode="host" if self.kv == "device" else self.decode)

    @classmethod
    def named(
        cls,
        name: StrategyName,
        *,
        chunk_tokens: int = 4096,
        kv: TierName | None = None,
        hidden: TierName = "host",
        decode: DecodeWay | None = None,
        weights: Literal["device", "stream"] = "device",
        weights_home: TierName = "host",
        logits: Literal["last", "all"] = "last",
        device_type: Literal["cuda", "cpu"] = "cuda",
    ) -> Strategy:
        """The strategy as it is usually run.

        Args:
            name: one of `STRATEGY_NAMES`.
            chunk_tokens: C.
            kv: for `layer-streaming`; the others have one place for it.
            hidden: for `layer-streaming`.
            decode: for `layer-streaming`; None leaves keys and values where they live.
            weights: for `layer-streaming`.
            weights_home: for `layer-streaming`.
            logits: "all" is the paper's own baseline.
            device_type: what the model computes on.
        """
        place = kv if kv is not None and name == "layer-streaming" else _KV_IN_PREFILL[name]
        stays = place != "device" and name in ("offload", "layer-streaming")
        is_ours = name == "layer-streaming"
        return cls(
            name=name,
            chunk_tokens=chunk_tokens,
            kv=place,
            hidden=hidden,
            decode=decode if decode and is_ours else "host" if stays else "device",
            weights=weights,
            weights_home=weights_home,
            logits=logits,
            device_type=device_type,
        )
