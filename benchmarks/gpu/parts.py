"""What is measured, in order: the most important first."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil
import torch

from benchmarks.gpu import exactness
from benchmarks.gpu.longest import find_longest, try_with_two_layers
from benchmarks.gpu.models import (
    MODEL,
    llama_config,
    random_ids,
    random_model,
    shape_of,
)
from benchmarks.gpu.overlap import measure_overlap
from benchmarks.gpu.session import Session, TimeUp
from benchmarks.paper.run_strategy import STRATEGIES, engine_settings, run_strategy
from mom_core import Engine, EngineConfig, PrefillProgress, Token
from mom_core.config import DecodeMode
from mom_core.forecast.peak_bytes import forecast_memory
from mom_core.forecast.seconds import forecast_duration
from mom_core.forecast.shape import ModelShape
from mom_core.hardware.rates import measure_rates
from mom_core.strategy import Strategy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

GIB = 2**30
_DECODE_TOKENS = 9
_REPEATS = 3
# Of a forecast of time, what a reading takes in any case.
_CERTAIN_SHARE = 0.6


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Lengths and limits of a run.

    Args:
        is_tiny: a dry run: the tiny model, in fp32.
        warm_tokens: read once in each way before anything counts.
        short_tokens, middle_tokens, paper_tokens, long_tokens: 32k, 128k, 155k and 455k.
        chunk_tokens: C.
        chunked_tokens: chunk sizes of the two chunked prefills.
        cap_bytes: memory of the smaller card that is imitated.
        trial_tokens: lengths of the runs that the longest context is found from.
        sanitizer_seconds: it may take.
    """

    is_tiny: bool
    warm_tokens: int
    short_tokens: int
    middle_tokens: int
    paper_tokens: int
    long_tokens: int
    chunk_tokens: int
    chunked_tokens: tuple[int, int]
    cap_bytes: int
    trial_tokens: tuple[int, int]
    sanitizer_seconds: float


REAL = Sizes(
    is_tiny=False,
    warm_tokens=4096,
    short_tokens=32_768,
    middle_tokens=131_072,
    paper_tokens=155_000,
    long_tokens=455_000,
    chunk_tokens=4096,
    chunked_tokens=(512, 8192),
    cap_bytes=24 * GIB,
    trial_tokens=(32_768, 65_536),
    sanitizer_seconds=100.0,
)
DRY = Sizes(
    is_tiny=True,
    warm_tokens=32,
    short_tokens=64,
    middle_tokens=128,
    paper_tokens=160,
    long_tokens=450,
    chunk_tokens=32,
    chunked_tokens=(16, 64),
    cap_bytes=24 * GIB,
    trial_tokens=(64, 128),
    sanitizer_seconds=100.0,
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A piece of the program that runs in a process of its own.

    Args:
        title: what it is about.
        limit_seconds: it may take; all parts together stay under 25 minutes.
        run: does it.
    """

    title: str
    limit_seconds: float
    run: Callable[[Session, Sizes], None]


def exact(session: Session, sizes: Sizes) -> None:
    """Exactness on this device: attention, every family, every tier, and the sanitizer."""
    brief, device = sizes.is_tiny, session.device
    session.measure("attention", lambda: exactness.check_attention(device, is_brief=brief))
    session.measure("tiers", lambda: exactness.check_tiers(device, is_brief=brief))
    for family in exactness.families(is_brief=brief):
        session.measure(
            f"family {family}",
            partial(exactness.check_family, device, family, is_brief=brief),
        )
    session.measure(
        "compute-sanitizer",
        lambda: exactness.check_with_sanitizer(
            is_dry_run=brief, limit_seconds=min(sizes.sanitizer_seconds, session.remaining_seconds)
        ),
        expected_seconds=0.0 if brief else 30.0,
    )


def middle(session: Session, sizes: Sizes) -> None:
    """128k tokens in every way, and every way to decode."""
    model = _big_model(session, sizes)
    ways = _ways(sizes)
    _warm_up(session, sizes, model, ways)
    streaming = ways.pop("layer-streaming")
    _layer_streaming(session, model, streaming, sizes.middle_tokens, "")
    # The slowest last.
    for name in sorted(ways, key=lambda name: name.startswith("chunked")):
        _run_way(session, model, name, ways[name], sizes.middle_tokens)


def long_under_a_cap(session: Session, sizes: Sizes) -> None:
    """455k tokens by layer-streaming on a card of 24 GiB."""
    with session.device.capped(sizes.cap_bytes):
        model = _big_model(session, sizes)
        streaming = _ways(sizes)["layer-streaming"]
        _warm_up(session, sizes, model, {"layer-streaming": streaming})
        label = f" under {sizes.cap_bytes / GIB:.0f} GiB"
        _layer_streaming(session, model, streaming, sizes.long_tokens, label)


def long_as_published(session: Session, sizes: Sizes) -> None:
    """455k tokens by the paper's method on the whole card."""
    model = _big_model(session, sizes)
    ways = _ways(sizes)
    _warm_up(session, sizes, model, {"mom": ways["mom"]})
    _run_way(session, model, "mom", ways["mom"], sizes.long_tokens)


def the_rest(session: Session, sizes: Sizes) -> None:
    """32k in every way, 155k in the paper's, overlap, and the longest contexts."""
    ways = _ways(sizes)
    streaming = ways["layer-streaming"]
    steps: dict[str, Callable[[], None]] = {
        "32k and 155k": lambda: _short_and_paper(session, sizes, ways),
        "overlap": lambda: _overlap(session, sizes),
        "longest under the cap": lambda: _longest(
            session, sizes, "layer-streaming", streaming, sizes.cap_bytes
        ),
        "longest as published": lambda: _longest(session, sizes, "mom", ways["mom"], None),
        "longest standard": lambda: _longest(
            session, sizes, "standard", ways["standard"], None, is_confirmed_whole=True
        ),
    }
    for name, strategy in ways.items():
        if name not in ("standard", "mom"):
            steps[f"longest {name}"] = partial(_longest, session, sizes, name, strategy, None)
    for name, step in steps.items():
        session.attempt(name, step)


def _short_and_paper(session: Session, sizes: Sizes, ways: dict[str, Strategy]) -> None:
    model = _big_model(session, sizes)
    _warm_up(session, sizes, model, ways)
    for name, strategy in ways.items():
        _run_way(session, model, name, strategy, sizes.short_tokens)
    for name in ("standard", "mom", "layer-streaming"):
        _run_way(session, model, name, ways[name], sizes.paper_tokens)
    _streamed_weights(session, sizes, model, ways["layer-streaming"])


PARTS: dict[int, Part] = {
    1: Part(title="exactness", limit_seconds=180, run=exact),
    2: Part(title="128k, every way", limit_seconds=310, run=middle),
    3: Part(title="455k under 24 GiB", limit_seconds=340, run=long_under_a_cap),
    4: Part(title="455k as published", limit_seconds=260, run=long_as_published),
    5: Part(title="the rest", limit_seconds=335, run=the_rest),
}


def _ways(sizes: Sizes) -> dict[str, Strategy]:
    """The strategies at this run's sizes, under the same names."""
    small, large = sizes.chunked_tokens
    chunks = {"chunked 512": small, "chunked 8192": large}
    return {
        name: replace(strategy, chunk_tokens=chunks.get(name, sizes.chunk_tokens))
        for name, strategy in STRATEGIES.items()
    }


def _big_model(session: Session, sizes: Sizes, layers: int | None = None) -> PreTrainedModel:
    config = llama_config(is_tiny=sizes.is_tiny, layers=layers)
    dtype = torch.float32 if sizes.is_tiny else torch.bfloat16
    session.device.free()
    return random_model(config, session.device.torch_device, dtype)


def _warm_up(
    session: Session, sizes: Sizes, model: PreTrainedModel, ways: dict[str, Strategy]
) -> None:
    """Runs each way once, shortly: libraries start, and its speed is known."""
    session.measure("rates", lambda: _measure_rates(session, sizes, model))
    for name, strategy in ways.items():
        _run_way(session, model, name, strategy, sizes.warm_tokens)


def _measure_rates(session: Session, sizes: Sizes, model: PreTrainedModel) -> dict[str, Any]:
    """Of this machine, for the forecasts of time."""
    shape = shape_of(model)
    session.rates = measure_rates(
        model.dtype,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        hidden=shape.hidden,
        mlp=shape.mlp,
        device=session.device.torch_device,
        rows=sizes.chunk_tokens,
        keys=4 * sizes.chunk_tokens,
    )
    return asdict(session.rates)


def _expected_seconds(
    session: Session, model: PreTrainedModel, strategy: Strategy, tokens: int
) -> float:
    """What a reading takes at least; 0 while nothing is known of the machine."""
    if session.rates is None:
        return 0.0
    duration = forecast_duration(shape_of(model), tokens, strategy, session.rates)
    return _CERTAIN_SHARE * duration.prefill_seconds


def _run_way(
    session: Session, model: PreTrainedModel, name: str, strategy: Strategy, tokens: int
) -> None:
    ids = random_ids(model.config, tokens)
    session.measure(
        f"{name}, {tokens} tokens",
        lambda: run_strategy(
            model, strategy, ids, new_tokens=_DECODE_TOKENS, device=session.device
        ).as_dict(),
        expected_seconds=_expected_seconds(session, model, strategy, tokens),
    )
    _forecast(session, model, f"{name}, {tokens} tokens", strategy, tokens)


def _layer_streaming(
    session: Session, model: PreTrainedModel, strategy: Strategy, tokens: int, label: str
) -> None:
    """One reading, and the answer to it in every way to decode."""
    ids = random_ids(model.config, tokens)
    engine = Engine(model, config=engine_settings(strategy))
    name = f"layer-streaming, {tokens} tokens{label}"
    # However long it is expected to take, it is tried: half a reading shows much too.
    result = session.measure(name, lambda: _read(session, engine, ids))
    _forecast(session, model, name, strategy, tokens)
    if result is not None and result["is_complete"]:
        for mode, config in _decode_modes(strategy).items():
            engine.configure(config)
            session.measure(f"{name}, decode {mode}", lambda: _answer(session, engine, ids))
    engine.close()


def _forecast(
    session: Session, model: PreTrainedModel, name: str, strategy: Strategy, tokens: int
) -> None:
    """What `mom plan` would have said, to stand beside what was measured."""

    def forecast() -> dict[str, Any]:
        shape = shape_of(model)
        memory = forecast_memory(shape, None, tokens, strategy)
        found: dict[str, Any] = {
            "prefill_device_bytes": memory.prefill.device_bytes,
            "decode_device_bytes": memory.decode.device_bytes,
            "host_bytes": memory.host_peak_bytes,
        }
        if session.rates is not None:
            found |= asdict(forecast_duration(shape, tokens, strategy, session.rates))
        return found

    session.measure(f"{name}, forecast", forecast)


def _decode_modes(strategy: Strategy) -> dict[str, EngineConfig]:
    """Every way to answer from keys and values that lie on the host."""
    modes: list[DecodeMode] = ["host", "stream", "device"]
    return {mode: replace(engine_settings(strategy), decode=mode) for mode in modes}


def _read(session: Session, engine: Engine, ids: Sequence[int]) -> dict[str, Any]:
    """Reads a prompt; the most on the device and on the host meanwhile."""
    session.device.synchronize()
    session.device.reset_peak()
    started = time.perf_counter()
    host_working, fraction = 0, 0.0
    is_complete = True
    try:
        for progress in engine.read(ids):
            host_working = max(host_working, engine.held_bytes.working("host"))
            if isinstance(progress, PrefillProgress):
                fraction = progress.fraction
    except TimeUp:
        is_complete = False
    session.device.synchronize()
    seconds = time.perf_counter() - started
    return {
        "tokens": len(ids),
        "is_complete": is_complete,
        "fraction": fraction,
        "seconds": seconds,
        "prefill_tokens_per_second": len(ids) / seconds if is_complete else None,
        "device_peak_bytes": session.device.peak_bytes(),
        "reserved_peak_bytes": session.device.reserved_peak_bytes(),
        "device_overhead_bytes": session.device.overhead_bytes(),
        "kv_host_bytes": engine.held_bytes["host", "kv"],
        "kv_device_bytes": engine.held_bytes["device", "kv"],
        "working_host_bytes": host_working,
        "system_used_bytes": psutil.virtual_memory().used,
    }


def _answer(session: Session, engine: Engine, ids: Sequence[int]) -> dict[str, Any]:
    """Answers a prompt that was read; what comes before the second token is not counted."""
    session.device.synchronize()
    session.device.reset_peak()
    started = time.perf_counter()
    at: list[float] = []
    answer: list[int] = []
    for event in engine.generate(ids, max_new_tokens=_DECODE_TOKENS):
        if isinstance(event, Token):
            at.append(time.perf_counter())
            answer.append(event.token_id)
    # The first step may have to bring things where they are needed.
    return {
        "token_ids": answer,
        "first_step_seconds": at[1] - started,
        "seconds_per_token": (at[-1] - at[1]) / (len(at) - 2),
        "device_peak_bytes": session.device.peak_bytes(),
    }


def _overlap(session: Session, sizes: Sizes) -> None:
    layers = 4 if sizes.is_tiny else 8
    model = _big_model(session, sizes, layers)
    ids = random_ids(model.config, 2 * sizes.short_tokens)
    session.measure(
        "overlap",
        lambda: measure_overlap(
            model,
            ids,
            chunk_tokens=sizes.chunk_tokens,
            repeats=1 if sizes.is_tiny else _REPEATS,
            device=session.device,
        ),
    )


def _streamed_weights(
    session: Session, sizes: Sizes, model: PreTrainedModel, strategy: Strategy
) -> None:
    """Layer-streaming with the weights at home on the host: what a small card would do."""
    ids = random_ids(model.config, sizes.short_tokens)
    session.measure(
        f"layer-streaming with streamed weights, {sizes.short_tokens} tokens",
        lambda: run_strategy(
            model,
            strategy,
            ids,
            new_tokens=_DECODE_TOKENS,
            device=session.device,
            engine_config=replace(engine_settings(strategy), weights="stream"),
        ).as_dict(),
        expected_seconds=_expected_seconds(session, model, strategy, sizes.short_tokens),
    )


def _longest(
    session: Session,
    sizes: Sizes,
    strategy_name: str,
    strategy: Strategy,
    cap_bytes: int | None,
    *,
    is_confirmed_whole: bool = False,
) -> None:
    """The longest context of one way, found and tried with two layers.

    Args:
        session: belongs to this part.
        sizes: the sizes of this run.
        strategy_name: shown.
        strategy: how it runs.
        cap_bytes: memory of a smaller card; None for this one.
        is_confirmed_whole: whether the whole model then reads as much.
    """
    device = session.device
    model = _big_model(session, sizes, layers=2)
    whole = ModelShape.of_config(llama_config(is_tiny=sizes.is_tiny), MODEL, model.dtype)
    limit_bytes = (cap_bytes or device.total_bytes()) - device.overhead_bytes()
    label = f" under {cap_bytes / GIB:.0f} GiB" if cap_bytes else ""
    name = f"longest context, {strategy_name}{label}"
    result = session.measure(
        name,
        lambda: find_longest(
            model,
            strategy,
            whole,
            limit_bytes=limit_bytes,
            host_bytes=int(psutil.virtual_memory().total),
            trial_tokens=sizes.trial_tokens,
            device=device,
        ),
    )
    if result is None or result["longest_tokens"] is None:
        return
    tokens = _shown_tokens(sizes, result["longest_tokens"])
    run = session.measure(
        f"{name}, tried with two layers",
        lambda: try_with_two_layers(
            model,
            strategy,
            tokens=tokens,
            layers=len(whole.layers),
            limit_bytes=limit_bytes,
            device=device,
        ),
        expected_seconds=_expected_seconds(session, model, strategy, tokens),
    )
    if is_confirmed_whole and run is not None and run["fits"]:
        del model
        _run_way(session, _big_model(session, sizes), strategy_name, strategy, tokens)


def _shown_tokens(sizes: Sizes, tokens: int) -> int:
    """A dry run's device is the whole machine: no need to fill it."""
    return min(tokens, sizes.long_tokens) if sizes.is_tiny else tokens
