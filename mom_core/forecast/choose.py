""" "Auto", decided: the settings of a run from what a machine has free, or a refusal in a sentence.

A pure function of a model's shape, a length and free bytes. Of all settings whose forecast fits,
the fastest is taken: KV on the device before the host before the disk, large chunks before small
ones, weights on the device before weights that are streamed.

Source: ours.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mom_core.config import EngineConfig, TierName
from mom_core.forecast.capacity import Machine
from mom_core.forecast.peak_bytes import MemoryForecast, forecast_memory
from mom_core.forecast.recurrent import RecurrentBytes
from mom_core.forecast.seconds import run_seconds
from mom_core.forecast.shape import ModelShape
from mom_core.hardware.rates import Rates
from mom_core.model.work import chunk_flops
from mom_core.sizes import size_text
from mom_core.strategy import DecodeWay, Strategy

_CUDA_CHUNKS = (4096, 2048, 1024, 512, 256)
# A chunk of one layer on a CPU should take no longer than a person waits for Stop.
_CPU_CHUNK_FLOPS = 5e10
_CPU_CHUNK_RANGE = (64, 2048)
# Beyond any context that a model is made for; the search for the longest one ends here.
_LONGEST_TOKENS = 1 << 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Settings that fit.

    Args:
        strategy: layer-streaming with its settings.
        forecast: the memory it takes.
        reason: why these, in one line.
    """

    strategy: Strategy
    forecast: MemoryForecast
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Nothing fits.

    Args:
        forecast: what the settings that need least take.
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
    config: EngineConfig | None = None,
    kv_tiers: Sequence[TierName] | None = None,
    seconds: Callable[[Strategy], float] | None = None,
    others: Callable[[], Sequence[Candidate]] = tuple,
) -> Decision | Refusal:
    """The fastest settings that fit.

    Args:
        shape: the model's numbers.
        recurrent: what a recurrent layer holds; None if the model has none.
        tokens: S, of the prompt.
        machine: the bytes that may be taken.
        config: the settings; each "auto" among them is decided. None decides all.
        kv_tiers: tiers that keys and values may use, from fast to large; None for those that
            `config` allows.
        seconds: gives the seconds a run takes; None ranks strategies in the usual order.
        others: gives models to name in a refusal; called only for one.
    """
    config = config or EngineConfig()
    ways = list(_from_fast_to_small(shape, tokens, machine, config, kv_tiers))
    if seconds is not None:
        # Of ways that are equally fast the first stays before the others.
        ways.sort(key=seconds)
    smallest = min(way.chunk_tokens for way in ways)
    # Of a prompt of many chunks, smaller ones never take more.
    is_monotone = tokens >= 2 * max(way.chunk_tokens for way in ways)
    hopeless: set[Strategy] = set()
    least: MemoryForecast | None = None
    for way in ways:
        leanest = replace(way, chunk_tokens=smallest) if is_monotone else way
        if leanest in hopeless:
            continue
        for strategy in (leanest, way):
            forecast = forecast_memory(shape, recurrent, tokens, strategy)
            if not machine.has_room_for(forecast):
                break
        else:
            return Decision(strategy=way, forecast=forecast, reason=_reason(way, machine))
        if strategy is leanest:
            hopeless.add(leanest)
        if least is None or _lack(machine, forecast) < _lack(machine, least):
            least = forecast
    if least is None:
        raise ValueError("no settings to choose from")
    return Refusal(
        forecast=least,
        sentence=_refusal(shape, recurrent, least, machine, config, others),
    )


def ranking(
    shape: ModelShape, tokens: int, machine: Machine, rates: Rates | None
) -> Callable[[Strategy], float] | None:
    """What `decide` ranks ways by where rates are known: seconds of reading and an answer.

    Without a GPU the usual order is that of the seconds, and needs no rates.
    """
    if rates is None or machine.device_bytes is None:
        return None
    return run_seconds(shape, tokens, rates)


def longest_context_tokens(
    shape: ModelShape,
    recurrent: RecurrentBytes | None,
    machine: Machine,
    strategy: Strategy | None = None,
    config: EngineConfig | None = None,
    most: int = _LONGEST_TOKENS,
) -> int:
    """The longest prompt that fits; 0 if none does.

    Args:
        shape: the model's numbers.
        recurrent: what a recurrent layer holds; None if the model has none.
        machine: what may be taken.
        strategy: with fixed settings; None for whatever `decide` finds.
        config: the settings, for `decide`.
        most: the most tokens to consider.
    """
    leanest = config or EngineConfig()
    if leanest.decode == "auto":
        # Keys and values that stay where they lie take least.
        leanest = replace(leanest, decode="host")

    def ways(tokens: int) -> list[Strategy]:
        if strategy is not None:
            return [strategy]
        found = _from_fast_to_small(shape, tokens, machine, leanest, None)
        return sorted(found, key=lambda way: way.chunk_tokens)

    def fits(index: int, tokens: int) -> bool:
        # On a CPU the chunk depends on the length.
        at_length = at_first if machine.device_bytes is not None else ways(tokens)
        return index < len(at_length) and machine.has_room_for(
            forecast_memory(shape, recurrent, tokens, at_length[index])
        )

    at_first = ways(1)
    smallest, largest = at_first[0].chunk_tokens, at_first[-1].chunk_tokens
    longest = 0
    # One way after the other, each only asked whether it goes further than those before.
    for index, way in enumerate(at_first):
        if way.chunk_tokens > smallest and longest >= 2 * largest:
            # Of a prompt of many chunks, smaller ones never take more.
            break
        low, high = longest, longest + 1
        while high < most and fits(index, high):
            low, high = high, min(8 * high, most)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(index, middle) else (low, middle)
        longest = low
    return longest


def _lack(machine: Machine, forecast: MemoryForecast) -> tuple[bool, int]:
    """How far a run is from fitting: what the device has no room for cannot be made up for."""
    missing = machine.missing(forecast)
    return "device" in missing, sum(missing.values())


def cpu_chunk_tokens(shape: ModelShape, tokens: int) -> int:
    """C on a CPU: as large as Stop can wait for, attention to half of all tokens counted in.

    Args:
        shape: the model's numbers.
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
    shape: ModelShape,
    tokens: int,
    machine: Machine,
    config: EngineConfig,
    kv_tiers: Sequence[TierName] | None,
) -> Iterator[Strategy]:
    if config.chunk_tokens != "auto":
        chunks: tuple[int, ...] = (config.chunk_tokens,)
    elif machine.device_bytes is None:
        largest = cpu_chunk_tokens(shape, tokens)
        chunks = tuple(c for c in (largest, largest // 4) if c >= _CPU_CHUNK_RANGE[0])
    else:
        chunks = _CUDA_CHUNKS
    # With one memory, host and device are the same place.
    places: tuple[TierName, ...] = (
        ("device", "disk") if machine.device_bytes is None else ("device", "host", "disk")
    )
    if kv_tiers is None:
        kv_tiers = places if config.kv == "auto" else (config.kv,)
    for weights, home in _weights_ways(machine, config):
        for kv in kv_tiers:
            # When the device cannot hold all KV, hidden states cost nothing on the host: they
            # come up while the chunk before is computed.
            hidden_places = places if kv == "device" else tuple(p for p in places if p != "device")
            for chunk, hidden, decode in itertools.product(
                chunks,
                hidden_places if config.hidden == "auto" else (config.hidden,),
                _decode_ways(kv, machine, config),
            ):
                yield Strategy.named(
                    "layer-streaming",
                    chunk_tokens=chunk,
                    kv=kv,
                    hidden=hidden,
                    decode=decode,
                    weights=weights,
                    weights_home=home,
                    device_type=machine.device_type,
                )


def _weights_ways(
    machine: Machine, config: EngineConfig
) -> list[tuple[Literal["device", "stream"], TierName]]:
    """Whether weights are streamed, and from where."""
    ways: list[tuple[Literal["device", "stream"], TierName]] = []
    if config.weights != "stream":
        ways.append(("device", "host"))
    # Without a GPU they already lie where they are needed.
    is_possible = config.weights == "auto" and machine.device_bytes is not None
    if config.weights == "stream" or is_possible:
        ways += [("stream", "host"), ("stream", "disk")]
    return ways


def _decode_ways(kv: TierName, machine: Machine, config: EngineConfig) -> tuple[DecodeWay, ...]:
    """How an answer attends to keys and values, the fastest first."""
    if kv == "device":
        return ("device",)
    if config.decode != "auto":
        return (config.decode,)
    return ("host",) if machine.device_bytes is None else ("device", "host", "stream")


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
    if strategy.kv != "device" and machine.device_bytes is not None:
        kept += {
            "device": "; they come back to the device for the answer",
            "host": "; for the answer the CPU attends to them where they lie",
            "stream": "; for the answer they come layer by layer",
        }[strategy.decode]
    if strategy.weights == "stream":
        kept += f"; weights come layer by layer from the {strategy.weights_home}"
    return f"{kept}; chunks of {strategy.chunk_tokens:,} tokens"


def _refusal(
    shape: ModelShape,
    recurrent: RecurrentBytes | None,
    least: MemoryForecast,
    machine: Machine,
    config: EngineConfig,
    others: Callable[[], Sequence[Candidate]],
) -> str:
    terms = least.by_tier(is_one_memory=machine.device_bytes is None)
    room = {
        "device": machine.device_bytes or 0,
        "host": machine.host_bytes,
        "disk": machine.disk_bytes,
    }
    names = {"device": "on the device", "host": "in host memory", "disk": "on the disk"}
    needs = []
    for tier in machine.missing(least):
        parts = sorted(terms[tier].items(), key=lambda item: -item[1])[:3]
        largest = ", ".join(f"{name} {size_text(n)}" for name, n in parts if n)
        there = f"of {size_text(room[tier])} there"
        if tier == "host" and machine.taken_bytes:
            there += (
                f" (what is allowed, less {size_text(machine.taken_bytes)} that the program itself "
                "takes)"
            )
        needs.append(f"{size_text(sum(terms[tier].values()))} {names[tier]} ({largest}), {there}")
    sentence = (
        f"{least.tokens:,} tokens of {shape.name} do not fit: even with the settings that come "
        f"nearest they take {' and '.join(needs)}."
    )
    longest = longest_context_tokens(shape, recurrent, machine, config=config, most=least.tokens)
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
