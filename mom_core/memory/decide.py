""" "Auto", decided: the settings of a run from what a machine has free, or a refusal in a sentence.

A pure function of a model's shape, a length and free bytes. Of all settings whose forecast fits,
the fastest is taken: KV on the device before the host before the disk, large chunks before small
ones, weights on the device before weights that are streamed.

Source: ours.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from mom_core.config import TierName
from mom_core.generate.work import chunk_flops
from mom_core.memory.plan import MemoryForecast, forecast_memory
from mom_core.memory.shape import ModelShape
from mom_core.memory.simulate import RecurrentBytes
from mom_core.memory.strategy import Strategy

# What an allocator, the GPU's context and other programs may take beside a forecast's bytes.
DEVICE_SHARE = 0.95
HOST_SHARE = 0.9
_KEPT_DISK_BYTES = 1 << 30
_CUDA_CHUNKS = (4096, 2048, 1024, 512, 256)
# A chunk of one layer on a CPU should take no longer than a person waits for Stop.
_CPU_CHUNK_FLOPS = 5e10
_CPU_CHUNK_RANGE = (64, 2048)
# Beyond any context that a model is made for; the search for the longest one ends here.
_LONGEST_TOKENS = 1 << 26

DecodeMode = Literal["device", "host", "stream"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What may be taken.

    Args:
        device_bytes: of the GPU; None without one, where the device is the host.
        host_bytes: of CPU memory.
        disk_bytes: where the files of the disk tier lie.
    """

    device_bytes: int | None
    host_bytes: int
    disk_bytes: int

    @property
    def device_type(self) -> Literal["cuda", "cpu"]:
        """What the device is."""
        return "cpu" if self.device_bytes is None else "cuda"

    def has_room_for(self, forecast: MemoryForecast) -> bool:
        """Whether a run fits, with a margin."""
        return not self.missing(forecast)

    def missing(self, forecast: MemoryForecast) -> dict[TierName, int]:
        """Bytes that a run needs beyond what there is, by tier, where it needs more."""
        needed: dict[TierName, int] = {
            "device": forecast.device_peak_bytes,
            "host": forecast.host_peak_bytes,
            "disk": forecast.disk_bytes,
        }
        room: dict[TierName, float] = {
            "device": DEVICE_SHARE * (self.device_bytes or 0),
            "host": HOST_SHARE * self.host_bytes,
            "disk": max(0, self.disk_bytes - _KEPT_DISK_BYTES),
        }
        if self.device_bytes is None:
            # One memory: what the device holds, the host does.
            needed["host"], needed["device"] = forecast.one_memory_peak_bytes, 0
        return {
            tier: round(needed[tier] - room[tier]) for tier in needed if needed[tier] > room[tier]
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Settings that a person has chosen; None leaves one to the decision.

    Args:
        chunk_tokens: C.
        kv: where keys and values live.
        hidden: where hidden states wait.
        weights: whether weights are streamed.
    """

    chunk_tokens: int | None = None
    kv: TierName | None = None
    hidden: TierName | None = None
    weights: Literal["device", "stream"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Settings that fit.

    Args:
        strategy: layer-streaming with its settings.
        decode: how keys and values that lie off the device are attended to while answering.
        forecast: of its memory.
        reason: why these, in one line.
    """

    strategy: Strategy
    decode: DecodeMode
    forecast: MemoryForecast
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Nothing fits.

    Args:
        forecast: of the settings that need least.
        sentence: what is needed, what there is, and the nearest thing that fits.
    """

    forecast: MemoryForecast
    sentence: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that might be used instead."""

    shape: ModelShape
    recurrent: RecurrentBytes | None


def decide(
    shape: ModelShape,
    recurrent: RecurrentBytes | None,
    tokens: int,
    machine: Machine,
    *,
    asked: Asked | None = None,
    others: Callable[[], Sequence[Candidate]] = tuple,
) -> Decision | Refusal:
    """The fastest settings that fit.

    Args:
        shape: of the model.
        recurrent: of its recurrent layers, if it has any.
        tokens: S, of the prompt.
        machine: what may be taken.
        asked: what a person has chosen.
        others: gives models to name in a refusal; only asked for then.
    """
    forecast: MemoryForecast | None = None
    least: MemoryForecast | None = None
    for strategy in _from_fast_to_small(shape, tokens, machine, asked or Asked()):
        forecast = forecast_memory(shape, recurrent, tokens, strategy)
        if machine.has_room_for(forecast):
            return Decision(
                strategy=strategy,
                decode=_decode_mode(shape, forecast, machine),
                forecast=forecast,
                reason=_reason(strategy, machine),
            )
        if least is None or _lack(machine, forecast) < _lack(machine, least):
            least = forecast
    if least is None:
        raise ValueError("no settings to choose from")
    return Refusal(
        forecast=least,
        sentence=_refusal(shape, recurrent, least, machine, asked or Asked(), others),
    )


def longest_context_tokens(
    shape: ModelShape,
    recurrent: RecurrentBytes | None,
    machine: Machine,
    strategy: Strategy | None = None,
    asked: Asked | None = None,
) -> int:
    """The longest prompt that fits; 0 if none does.

    Args:
        shape: of the model.
        recurrent: of its recurrent layers, if it has any.
        machine: what may be taken.
        strategy: with fixed settings; None for whatever `decide` finds.
        asked: what a person has chosen, for `decide`.
    """

    def ways(tokens: int) -> Iterator[Strategy]:
        if strategy is not None:
            return iter([strategy])
        return _from_fast_to_small(shape, tokens, machine, asked or Asked())

    def fits(way: int, tokens: int) -> bool:
        chosen = next(itertools.islice(ways(tokens), way, None), None)
        return chosen is not None and machine.has_room_for(
            forecast_memory(shape, recurrent, tokens, chosen)
        )

    longest = 0
    # One way after the other, each only asked whether it goes further than those before.
    for way, _ in enumerate(ways(1)):
        low, high = longest, longest + 1
        while high < _LONGEST_TOKENS and fits(way, high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(way, middle) else (low, middle)
        longest = low
    return longest


def _lack(machine: Machine, forecast: MemoryForecast) -> tuple[bool, int]:
    """How far a run is from fitting: what the device has no room for cannot be made up for."""
    missing = machine.missing(forecast)
    return "device" in missing, sum(missing.values())


def cpu_chunk_tokens(shape: ModelShape, tokens: int) -> int:
    """C on a CPU: as large as Stop can wait for, attention to half of all tokens counted in.

    Args:
        shape: of the model.
        tokens: that the context comes to.

    Returns:
        A power of two.
    """
    middle = tokens // 2
    largest = max(
        chunk_flops(layer, middle, middle + 1, is_last_layer=False) for layer in shape.layers
    )
    wanted = _CPU_CHUNK_FLOPS / max(1.0, largest)
    low, high = _CPU_CHUNK_RANGE
    return 1 << (int(min(max(wanted, low), high)).bit_length() - 1)


def _from_fast_to_small(
    shape: ModelShape, tokens: int, machine: Machine, asked: Asked
) -> Iterator[Strategy]:
    if asked.chunk_tokens is not None:
        chunks: tuple[int, ...] = (asked.chunk_tokens,)
    elif machine.device_bytes is None:
        largest = cpu_chunk_tokens(shape, tokens)
        chunks = tuple(c for c in (largest, largest // 4) if c >= _CPU_CHUNK_RANGE[0])
    else:
        chunks = _CUDA_CHUNKS
    # On one memory the host is no other place than the device.
    places: tuple[TierName, ...] = (
        ("device", "disk") if machine.device_bytes is None else ("device", "host", "disk")
    )
    kv_places = places if asked.kv is None else (asked.kv,)
    ways: tuple[Literal["device", "stream"], ...] = ("device",)
    if asked.weights is not None:
        ways = (asked.weights,)
    elif machine.device_bytes is not None:
        ways = ("device", "stream")
    for weights in ways:
        for kv in kv_places:
            # Beside a device that has no room for all KV, hidden states cost nothing on the host:
            # they come up while the chunk before is computed.
            hidden_places = places if kv == "device" else tuple(p for p in places if p != "device")
            for chunk in chunks:
                for hidden in hidden_places if asked.hidden is None else (asked.hidden,):
                    yield Strategy.named(
                        "layer-streaming",
                        chunk_tokens=chunk,
                        kv=kv,
                        hidden=hidden,
                        weights=weights,
                        device_type=machine.device_type,
                    )


def _decode_mode(shape: ModelShape, forecast: MemoryForecast, machine: Machine) -> DecodeMode:
    """Where it fits, KV comes back to the device for the answer; else the query goes to it."""
    kv = forecast.strategy.kv
    if kv == "device" or machine.device_bytes is None:
        return "device"
    stored = {**forecast.decode.host, **forecast.decode.disk}.get("KV", 0)
    if forecast.decode.device_bytes + stored <= DEVICE_SHARE * machine.device_bytes:
        return "device"
    # What lies on the disk is read into host memory in any case.
    return "host"


def _reason(strategy: Strategy, machine: Machine) -> str:
    if machine.device_bytes is None:
        kept = {
            "device": "everything fits in this machine's memory",
            "host": "keys and values are kept apart as asked",
            "disk": "keys and values do not fit in memory and lie on the disk",
        }[strategy.kv]
    else:
        kept = {
            "device": "keys and values of all layers fit on the device",
            "host": "keys and values of one layer fit on the device, those of all in host memory",
            "disk": "keys and values of one layer fit on the device, those of all only on the disk",
        }[strategy.kv]
    if strategy.weights == "stream":
        kept += "; weights do not fit and come layer by layer"
    return f"{kept}; chunks of {strategy.chunk_tokens:,} tokens"


def _gib(n_bytes: float) -> str:
    return f"{n_bytes / 2**30:,.1f} GiB"


def _refusal(
    shape: ModelShape,
    recurrent: RecurrentBytes | None,
    least: MemoryForecast,
    machine: Machine,
    asked: Asked,
    others: Callable[[], Sequence[Candidate]],
) -> str:
    terms = {
        "device": least.prefill.device
        if least.prefill.device_bytes >= least.decode.device_bytes
        else least.decode.device,
        "host": least.prefill.host,
        "disk": least.prefill.disk,
    }
    if machine.device_bytes is None:
        terms["host"] = {**terms["device"], **terms["host"]}
    room = {
        "device": machine.device_bytes or 0,
        "host": machine.host_bytes,
        "disk": machine.disk_bytes,
    }
    names = {"device": "on the device", "host": "in host memory", "disk": "on the disk"}
    needs = []
    for tier in machine.missing(least):
        parts = sorted(terms[tier].items(), key=lambda item: -item[1])[:3]
        told = ", ".join(f"{name} {_gib(n)}" for name, n in parts if n >= 1e8)
        needs.append(
            f"{_gib(sum(terms[tier].values()))} {names[tier]} ({told}), of {_gib(room[tier])} there"
        )
    sentence = (
        f"{least.tokens:,} tokens of {shape.name} do not fit: even with the settings that need "
        f"least they take {' and '.join(needs)}."
    )
    longest = longest_context_tokens(shape, recurrent, machine, asked=asked)
    ways = [f"a document of at most {longest:,} tokens"] if longest else []
    fitting = [
        other.shape
        for other in others()
        if other.shape.kv_bytes_per_token < shape.kv_bytes_per_token
        and isinstance(decide(other.shape, other.recurrent, least.tokens, machine), Decision)
    ]
    if fitting:
        # The largest of them is nearest to what was wanted.
        other_shape = max(fitting, key=lambda shape: shape.weights_bytes)
        ways.append(
            f"the model {other_shape.name} ({other_shape.kv_bytes_per_token // 1024} KiB of keys "
            f"and values a token instead of {shape.kv_bytes_per_token // 1024})"
        )
    if not ways:
        return f"{sentence} Choose a smaller model."
    return f"{sentence} What fits: {' or '.join(ways)}."
