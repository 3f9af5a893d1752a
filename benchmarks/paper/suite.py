"""The paper's comparison on this machine: really run with a small model, and simulated for large.

Really run: the built-in model on the CPU, every strategy timed, then run again under the tracker
that counts every tensor's bytes. Simulated: the same code on tensors without contents, for cards
of 24 and 80 GiB. "Standard" is today's honest baseline, which makes the last token's logits only;
the paper's own, with all of them, stands beside it.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from transformers import AutoConfig

from benchmarks.device import Device
from benchmarks.paper.run_strategy import STRATEGIES, run_strategy
from benchmarks.paper.simulate import Simulation, simulate, track
from benchmarks.record import describe_run
from benchmarks.workloads import make_workload
from mom_core.forecast.capacity import Machine
from mom_core.forecast.choose import longest_context_tokens
from mom_core.forecast.peak_bytes import MemoryForecast, forecast_memory
from mom_core.forecast.recurrent import recurrent_bytes
from mom_core.forecast.shape import ModelShape
from mom_core.forecast.tracker import Moment
from mom_core.model.catalogue import catalogue
from mom_core.strategy import Strategy

GIB = 2**30
MODEL = "smollm2-135m"
SIMULATED_MODELS = ("llama-3-8b", "qwen2.5-7b-1m", "mistral-nemo", "qwen3.5-9b")
CARDS_GIB = (24, 80)
# The machine around a card; nothing goes to its disk in this comparison.
HOST_BYTES = 128 * GIB
SIMULATED_TOKENS = 131_072
TIMELINE_MODEL = "llama-3-8b"
TIMELINE_STRATEGIES = ("standard", "mom", "layer-streaming")
# As "auto" chooses it for the built-in model, and what a prompt of 8,000 tokens has several of.
_CPU_CHUNK_TOKENS = 1024
# Each is a pass through all layers, and takes about a second to simulate.
_MOST_CHUNKS = 32


def run_paper(*, tokens: int, new_tokens: int, rounds: int) -> dict[str, Any]:
    """Runs and simulates all strategies.

    Args:
        tokens: length of the prompt that is really read.
        new_tokens: tokens per answer.
        rounds: how often each strategy is timed; every other round in the reverse order.

    Returns:
        The record.
    """
    return {
        **describe_run(),
        "suite": "paper",
        "real": {
            "model": MODEL,
            "tokens": tokens,
            "new_tokens": new_tokens,
            **_really_run(tokens, new_tokens, rounds),
        },
        "simulated": {
            "tokens": SIMULATED_TOKENS,
            "host_bytes": HOST_BYTES,
            "models": {name: _simulated(name) for name in SIMULATED_MODELS},
            "timelines": _timelines(),
        },
    }


def _really_run(tokens: int, new_tokens: int, rounds: int) -> dict[str, Any]:
    from mom_core.model.load import load_model

    loaded = load_model(MODEL)
    model = loaded.model
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    work = make_workload(loaded.tokenizer, tokens=tokens, new_tokens=new_tokens, threads=1)
    ways = dict(_on_cpu(tokens))
    device = Device()
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for strategy in ways.values():
        run_strategy(model, strategy, work.warm_ids, new_tokens=2, device=device)
    for turn in range(rounds):
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            print(f"round {turn + 1} of {rounds}: {name}", file=sys.stderr)
            run = run_strategy(
                model, ways[name], work.prompt_ids, new_tokens=new_tokens, device=device
            )
            samples[name].append(run.as_dict())
    strategies = {}
    for name, strategy in ways.items():
        print(f"tracked: {name}", file=sys.stderr)
        figures = ("prefill_tokens_per_second", "decode_tokens_per_second")
        strategies[name] = {
            "chunk_tokens": strategy.chunk_tokens,
            **{key: statistics.median(s[key] for s in samples[name]) for key in figures},
            **_peaks(track(model, tokens, strategy)),
            "samples": samples[name],
        }
    return {"dtype": str(model.dtype).removeprefix("torch."), "strategies": strategies}


def _on_cpu(tokens: int) -> Iterator[tuple[str, Strategy]]:
    """The strategies with a CPU's chunks; one as long as the prompt is no strategy of its own."""
    for name, strategy in STRATEGIES.items():
        if strategy.name == "chunked":
            chunk = strategy.chunk_tokens
            if chunk >= tokens:
                continue
        else:
            chunk = _CPU_CHUNK_TOKENS
        yield name, replace(strategy, chunk_tokens=chunk, device_type="cpu")


def _peaks(simulation: Simulation) -> dict[str, Any]:
    """The most on device and host, by phase and kind."""
    return {
        "prefill_device_peak_bytes": simulation.device_peak("prefill").device_bytes,
        "prefill_device_peak_by_kind": simulation.device_peak("prefill").device,
        "decode_device_peak_bytes": simulation.device_peak("decode").device_bytes,
        "device_peak_bytes": simulation.device_peak().device_bytes,
        "host_peak_bytes": simulation.host_peak().host_bytes,
    }


def _simulated(name: str) -> dict[str, Any]:
    """Peaks of each strategy at one length, and the longest context on each card."""
    print(f"simulated: {name}", file=sys.stderr)
    config = _config(name)
    shape = ModelShape.of_config(config, name)
    recurrent = recurrent_bytes(config)
    found = {}
    for label, strategy in STRATEGIES.items():
        machines = {
            f"{card} GiB": Machine(device_bytes=card * GIB, host_bytes=HOST_BYTES, disk_bytes=0)
            for card in CARDS_GIB
        }
        forecast = forecast_memory(shape, recurrent, SIMULATED_TOKENS, strategy)
        # Ours goes as far as "auto" takes it, with weights streamed where a card cannot hold them.
        fixed = None if label == "layer-streaming" else strategy
        found[label] = {
            **_peaks_of_large(config, forecast, strategy),
            "forecast_device_peak_bytes": forecast.device_peak_bytes,
            "longest_context_tokens": {
                card: longest_context_tokens(shape, recurrent, machine, fixed)
                for card, machine in machines.items()
            },
        }
    return found


def _peaks_of_large(config: Any, forecast: MemoryForecast, strategy: Strategy) -> dict[str, Any]:
    """Simulated; where that would be too many steps, forecast, which tests keep within 2 %."""
    if strategy.name == "chunked" and _MOST_CHUNKS * strategy.chunk_tokens < SIMULATED_TOKENS:
        return {
            "is_simulated": False,
            "device_peak_bytes": forecast.device_peak_bytes,
            "host_peak_bytes": forecast.host_peak_bytes,
        }
    return {"is_simulated": True, **_peaks(simulate(config, SIMULATED_TOKENS, strategy))}


def _config(name: str) -> Any:
    entry = catalogue()[name]
    return AutoConfig.for_model(**entry.config)


def _timelines() -> dict[str, list[dict[str, Any]]]:
    """The highest use of every layer's step, by kind, for the picture."""
    config = _config(TIMELINE_MODEL)
    return {
        name: list(_by_layer(simulate(config, SIMULATED_TOKENS, STRATEGIES[name])))
        for name in TIMELINE_STRATEGIES
    }


def _by_layer(simulation: Simulation) -> Iterator[dict[str, Any]]:
    """Moments of one layer in one phase, chunk after chunk, as one: the highest."""
    steps: dict[tuple[str, int], Moment] = {}
    layer = 0
    for moment in simulation.timeline:
        layer = moment.layer if moment.layer is not None else layer
        key = (moment.phase, layer)
        if key not in steps or moment.device_bytes > steps[key].device_bytes:
            steps[key] = moment
    for (phase, at), moment in steps.items():
        yield {"phase": phase, "layer": at, "device": moment.device}


def lines(record: dict[str, Any]) -> list[str]:
    """The tables for people."""
    real = record["real"]
    shown = [
        f"{real['model']}, {real['tokens']:,} tokens, really run in {real['dtype']}:",
        f"{'':24}{'prefill tok/s':>15}{'decode tok/s':>15}{'device peak':>15}{'host peak':>15}",
    ]
    for name, row in real["strategies"].items():
        shown.append(
            f"{name:24}{row['prefill_tokens_per_second']:>15,.0f}"
            f"{row['decode_tokens_per_second']:>15,.1f}"
            f"{row['device_peak_bytes'] / 2**20:>11,.0f} MiB"
            f"{row['host_peak_bytes'] / 2**20:>11,.0f} MiB"
        )
    for model, rows in record["simulated"]["models"].items():
        shown += ["", f"{model}, simulated at {record['simulated']['tokens']:,} tokens, bf16:"]
        for name, row in rows.items():
            longest = ", ".join(
                f"{tokens:,} on {card}" for card, tokens in row["longest_context_tokens"].items()
            )
            shown.append(
                f"{name:24}{row['device_peak_bytes'] / GIB:>8.1f} GiB device"
                f"{row['host_peak_bytes'] / GIB:>8.1f} GiB host   longest {longest}"
            )
    return shown
