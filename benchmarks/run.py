"""Side by side on this machine: plain transformers and mom_core, built-in model, 8,000 tokens.

Each peer runs in a process of its own, in each dtype, in turns; its faster dtype counts. Printed:
a table and one JSON line. `--save` appends the line to `benchmarks/results/run.jsonl`.

Extra peak memory is the process's highest resident memory while it reads, over what it held
before, less the keys and values that remain.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "run.jsonl"
DTYPES = ["bfloat16", "float32"]
PEERS = ["transformers", "mom_core"]


def prompt_ids(tokenizer: Any, tokens: int) -> list[int]:
    """Real text: the sample documents, over and over."""
    samples = ROOT / "assets" / "samples"
    files = [samples / "beekeeping-guide.md", *sorted((samples / "tidebell").rglob("*.py"))]
    text = "\n".join(path.read_text() for path in files)
    ids: list[int] = tokenizer(text * 20, verbose=False).input_ids
    assert len(ids) >= tokens
    return ids[:tokens]


def resident_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")


class Peak:
    """The most this process held since it was made, over what it held then."""

    def __init__(self) -> None:
        self._before = resident_bytes("VmRSS")
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def extra_bytes(self) -> int:
        return resident_bytes("VmHWM") - self._before


def run_transformers(model: Any, ids: list[int], new_tokens: int) -> dict[str, float]:
    import torch
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        peak, started = Peak(), time.perf_counter()
        logits = model(torch.tensor([ids]), past_key_values=cache, logits_to_keep=1).logits
        token = int(logits[0, -1].argmax())
        read = time.perf_counter()
        extra = peak.extra_bytes()
        for _ in range(new_tokens):
            logits = model(torch.tensor([[token]]), past_key_values=cache, logits_to_keep=1).logits
            token = int(logits[0, -1].argmax())
        ended = time.perf_counter()
    return {"prefill_s": read - started, "decode_s": ended - read, "extra_bytes": extra}


def run_mom(model: Any, ids: list[int], new_tokens: int) -> dict[str, float]:
    from mom_core import Engine, Finished

    engine = Engine(model)
    model.generation_config.eos_token_id = model.config.eos_token_id = []
    peak, extra, finished = Peak(), 0, None
    for event in engine.generate(ids, max_new_tokens=new_tokens + 1):
        if not extra and getattr(event, "index", None) == 0:
            extra = peak.extra_bytes()
        if isinstance(event, Finished):
            finished = event
    assert finished is not None
    return {
        "prefill_s": finished.prefill_seconds,
        "decode_s": finished.decode_seconds,
        "extra_bytes": extra,
    }


def child(peer: str, dtype: str, tokens: int, new_tokens: int) -> None:
    import torch

    from mom_core.model.load import load_model

    loaded = load_model("smollm2-135m", dtype=getattr(torch, dtype))
    ids = prompt_ids(loaded.tokenizer, tokens)
    config = loaded.model.config
    kv = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    kv *= loaded.model.dtype.itemsize
    run = run_transformers if peer == "transformers" else run_mom
    run(loaded.model, ids[:300], 4)
    sample = run(loaded.model, ids, new_tokens)
    print(
        json.dumps(
            {
                "prefill_tokens_per_second": tokens / sample["prefill_s"],
                "decode_tokens_per_second": new_tokens / sample["decode_s"],
                "extra_peak_bytes": sample["extra_bytes"] - kv * tokens,
            }
        )
    )


def worthwhile_dtypes() -> list[str]:
    """Both, but for one that this CPU can hardly compute in (bf16 may be forty times slower)."""
    import torch

    from mom_core.model.dtype_probe import ModelSize, predicted_seconds
    from mom_core.model.load import load_model

    size = ModelSize.of(load_model("smollm2-135m").model.config)
    seconds = {dtype: predicted_seconds(size, getattr(torch, dtype)) for dtype in DTYPES}
    return [dtype for dtype in DTYPES if seconds[dtype] < 4 * min(seconds.values())]


def measure(peer: str, dtype: str, tokens: int, new_tokens: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", peer, dtype]
    command += ["--tokens", str(tokens), "--new-tokens", str(new_tokens)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    sample: dict[str, float] = json.loads(output.stdout.splitlines()[-1])
    return sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=8000)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--child", nargs=2, metavar=("PEER", "DTYPE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child, arguments.tokens, arguments.new_tokens)
        return
    dtypes = worthwhile_dtypes()
    samples: dict[str, dict[str, list[dict[str, float]]]] = {
        peer: {dtype: [] for dtype in dtypes} for peer in PEERS
    }
    for turn in range(arguments.rounds):
        for dtype in dtypes:
            for peer in PEERS[:: -1 if turn % 2 else 1]:
                sample = measure(peer, dtype, arguments.tokens, arguments.new_tokens)
                samples[peer][dtype].append(sample)
    report(samples, arguments)


def report(samples: dict[str, dict[str, list[dict[str, float]]]], arguments: Any) -> None:
    import torch
    import transformers

    def seconds(runs: list[dict[str, float]]) -> float:
        """For reading it all and writing 48 tokens: what a dtype is chosen by."""
        return statistics.median(
            arguments.tokens / run["prefill_tokens_per_second"]
            + arguments.new_tokens / run["decode_tokens_per_second"]
            for run in runs
        )

    best: dict[str, dict[str, Any]] = {}
    for peer, by_dtype in samples.items():
        dtype = min(by_dtype, key=lambda dtype: seconds(by_dtype[dtype]))
        keys = by_dtype[dtype][0]
        best[peer] = {
            "dtype": dtype,
            **{key: statistics.median(run[key] for run in by_dtype[dtype]) for key in keys},
        }
    plain, ours = best["transformers"], best["mom_core"]
    ratios = {key: ours[key] / plain[key] for key in plain if key != "dtype"}
    print(f"{'':24}{'transformers':>16}{'mom_core':>16}{'ratio':>10}")
    print(f"{'dtype':24}{plain['dtype']:>16}{ours['dtype']:>16}")
    for key, ratio in ratios.items():
        is_bytes = key.endswith("bytes")
        left, right = (
            f"{side[key] / 2**20:,.0f} MiB" if is_bytes else f"{side[key]:,.1f}"
            for side in (plain, ours)
        )
        label = (
            key.replace("_tokens_per_second", " tokens/s").replace("_bytes", "").replace("_", " ")
        )
        print(f"{label:24}{left:>16}{right:>16}{ratio:>9.2f}x")
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=ROOT
    ).stdout.strip()
    line = json.dumps(
        {
            "program": "run.py",
            "date": time.strftime("%Y-%m-%d"),
            "commit": commit,
            "cores": os.cpu_count(),
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "machine": platform.machine(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokens": arguments.tokens,
            "new_tokens": arguments.new_tokens,
            "ratios": ratios,
            "best": best,
            "samples": samples,
        }
    )
    if arguments.save:
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as file:
            file.write(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
