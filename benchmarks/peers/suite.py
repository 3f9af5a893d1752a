"""The peers in turns, the better dtype of each, and the ratios.

A figure of a peer is its best dtype's for that very figure; ours is in the one dtype that loading
chooses. So a ratio never flatters us.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.record import ROOT, describe_run
from benchmarks.workloads import make_workload

MODEL = "smollm2-135m"
DTYPES = ("bfloat16", "float32")
# Room for the prompt, its answers and the follow-up question.
_CAPACITY_TOKENS = 8192
# A dtype that this CPU can hardly compute in (bf16 may be forty times slower) is left out.
_WORTHWHILE = 4.0

# Figures of a sample, in the order they are shown; of a time or memory the least is best.
FIGURES = {
    "long_prefill_tokens_per_second": max,
    "long_decode_tokens_per_second": max,
    "short_prefill_tokens_per_second": max,
    "short_decode_tokens_per_second": max,
    "quote_tokens_per_second": max,
    "long_first_token_seconds": min,
    "follow_up_first_token_seconds": min,
    "long_extra_peak_bytes": min,
}


def run_peers(
    *, tokens: int, new_tokens: int, rounds: int, llama_python: Path | None
) -> dict[str, Any]:
    """Measures all peers.

    Args:
        tokens: length of each prompt.
        new_tokens: tokens per answer.
        rounds: how often each peer is measured; every other round in the reverse order.
        llama_python: an interpreter that has `llama_cpp`; None takes this one, if it has.

    Returns:
        The record: machine, versions, every sample, each peer's figures, ratios.
    """
    from mom_core.model.load import load_model

    loaded = load_model(MODEL)
    threads = os.cpu_count() or 1
    workload = make_workload(
        loaded.tokenizer, tokens=tokens, new_tokens=new_tokens, threads=threads
    )
    dtypes = _worthwhile_dtypes(loaded.model.config)
    del loaded
    jobs: list[tuple[str, str, dict[str, Any]]] = [
        ("transformers", sys.executable, {"module": "plain", "dtype": dtype}) for dtype in dtypes
    ]
    jobs.append(("mom-chat", sys.executable, {"module": "ours"}))
    if llama_python is None and importlib.util.find_spec("llama_cpp"):
        llama_python = Path(sys.executable)
    if llama_python is not None:
        from mom_core.model.builtin import ensure_gguf

        job = {"module": "llama", "gguf": str(ensure_gguf()), "capacity_tokens": _CAPACITY_TOKENS}
        jobs.append(("llama.cpp", str(llama_python), job))
    samples: list[dict[str, Any]] = []
    for turn in range(rounds):
        for peer, python, job in jobs[:: -1 if turn % 2 else 1]:
            print(f"round {turn + 1} of {rounds}: {peer} {job.get('dtype', '')}", file=sys.stderr)
            sample = _run(python, {**job, "workload": workload.as_dict()})
            samples.append({"peer": peer, "round": turn, "dtype": job.get("dtype"), **sample})
    return {
        **describe_run(),
        "suite": "peers",
        "model": MODEL,
        "tokens": tokens,
        "short_tokens": len(workload.short_ids),
        "new_tokens": new_tokens,
        "quote_tokens": workload.quote_tokens,
        "threads": threads,
        **summary(samples),
        "samples": samples,
    }


def summary(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of each peer, and ours over theirs.

    Args:
        samples: from all peers, at least one of them ours.
    """
    peers = {peer: _figures([s for s in samples if s["peer"] == peer]) for peer in _peers(samples)}
    ours = [s for s in samples if s["peer"] == "mom-chat"]
    with_lookup = statistics.median(_mean_quote_speed(s["lookup_quotes"]) for s in ours)
    peers["mom-chat"]["lookup_quote_tokens_per_second"] = with_lookup
    peers["mom-chat"]["lookup_tokens_per_step"] = statistics.median(
        statistics.mean(quote["tokens_per_step"] for quote in sample["lookup_quotes"])
        for sample in ours
    )
    differences = [difference for sample in ours for difference in sample["lookup_differences"]]
    ratios: dict[str, dict[str, float]] = {}
    for peer, figures in peers.items():
        if peer != "mom-chat":
            ratios[peer] = {name: peers["mom-chat"][name] / figures[name] for name in FIGURES}
            ratios[peer]["lookup_quote_tokens_per_second"] = (
                with_lookup / figures["quote_tokens_per_second"]
            )
    return {
        "figures": peers,
        "ratios": ratios,
        "follow_up_share_of_first": peers["mom-chat"]["follow_up_first_token_seconds"]
        / peers["mom-chat"]["long_first_token_seconds"],
        "lookup_answers": sum(len(sample["lookup_quotes"]) for sample in ours),
        "lookup_answers_that_differ": len(differences),
        "lookup_differences_within_rounding": sum(d["is_within_rounding"] for d in differences),
    }


def _peers(samples: list[dict[str, Any]]) -> list[str]:
    return sorted({sample["peer"] for sample in samples})


def _figures(samples: list[dict[str, Any]]) -> dict[str, float]:
    """The better dtype's median, figure by figure."""
    found: dict[str, float] = {}
    for name, best in FIGURES.items():
        by_dtype: dict[Any, list[float]] = {}
        for sample in samples:
            by_dtype.setdefault(sample["dtype"], []).append(_value(sample, name))
        found[name] = best(statistics.median(values) for values in by_dtype.values())
    return found


def _value(sample: dict[str, Any], name: str) -> float:
    if name == "quote_tokens_per_second":
        return _mean_quote_speed(sample["quotes"])
    return float(sample[name])


def _mean_quote_speed(quotes: list[dict[str, Any]]) -> float:
    """Of answers of equal length: the speed of all of them one after the other."""
    return float(statistics.harmonic_mean(quote["decode_tokens_per_second"] for quote in quotes))


def _worthwhile_dtypes(config: Any) -> list[str]:
    import torch

    from mom_core.model.dtype_probe import ModelSize, predicted_seconds

    size = ModelSize.of(config)
    seconds = {dtype: predicted_seconds(size, getattr(torch, dtype)) for dtype in DTYPES}
    return [dtype for dtype in DTYPES if seconds[dtype] < _WORTHWHILE * min(seconds.values())]


def _run(python: str, job: dict[str, Any]) -> dict[str, Any]:
    """One peer in a process of its own."""
    output = subprocess.run(
        [python, "-m", f"benchmarks.peers.{job['module']}"],
        input=json.dumps(job),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        cwd=ROOT,
    )
    sample: dict[str, Any] = json.loads(output.stdout.splitlines()[-1])
    return sample


def lines(record: dict[str, Any]) -> list[str]:
    """The table for people."""
    peers = sorted(record["figures"], key=lambda peer: peer == "mom-chat")
    others = peers[:-1]
    rows = [["", *peers, *(f"/ {peer}" for peer in others)]]
    for name in [*FIGURES, "lookup_quote_tokens_per_second"]:
        row = [_label(name)]
        row += [_shown(name, record["figures"][peer].get(name)) for peer in peers]
        row += [f"{record['ratios'][peer][name]:.2f}x" for peer in others]
        rows.append(row)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    ours = record["figures"]["mom-chat"]
    return [
        *table,
        f"follow-up's first token: {record['follow_up_share_of_first']:.1%} of the first's time",
        f"prompt lookup: {ours['lookup_tokens_per_step']:.2f} tokens a step; "
        f"{record['lookup_answers_that_differ']} of {record['lookup_answers']} answers differ from "
        f"one token a step, {record['lookup_differences_within_rounding']} of them within rounding",
    ]


def _label(name: str) -> str:
    return name.replace("_tokens_per_second", " tokens/s").replace("_", " ")


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name.endswith("_bytes"):
        return f"{value / 2**20:,.0f} MiB"
    return f"{value:,.2f}" if value < 10 else f"{value:,.1f}"
