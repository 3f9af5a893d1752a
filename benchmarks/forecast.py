"""The forecast of time against what runs take, both measured in the same minutes.

    python -m benchmarks.forecast [--tokens 2000 4000 8000] [--new-tokens 64] [--save]

For each length the machine's rates are probed, the run is forecast by them alone (without what
earlier runs taught), and then made: a prompt is read again, and an answer written without drafts.
The best of three runs counts, for others on the machine only ever make one slower. Printed: a
table, and one JSON line, which `--save` appends to `benchmarks/results/forecast.jsonl`. To be run
while nothing else is.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

import torch

from benchmarks import record
from benchmarks.workloads import distinct_text
from mom_core import Engine, EngineConfig, Finished
from mom_core.forecast.seconds import forecast_duration, rates_for
from mom_core.hardware.rates import Rates, measure_rates

MODEL = "smollm2-135m"
_RUNS = 3


def probe(engine: Engine) -> Rates:
    """The machine's rates for this model, measured now."""
    return rates_for(engine.shape, engine.dtype, engine.device, how=measure_rates)


def real_seconds(engine: Engine, ids: list[int], new_tokens: int) -> tuple[float, float]:
    """Of reading, and of each token of the answer: the best of some runs."""
    runs = []
    for _ in range(_RUNS):
        engine.context.crop(0)
        finished = list(engine.generate(ids, max_new_tokens=new_tokens))[-1]
        assert isinstance(finished, Finished)
        runs.append((finished.prefill_seconds, finished.decode_seconds / finished.decode_steps))
    reading, writing = zip(*runs, strict=True)
    return min(reading), min(writing)


def measure(engine: Engine, ids: list[int], new_tokens: int) -> dict[str, Any]:
    """One length: forecast and real seconds."""
    rates = probe(engine)
    real_read, real_token = real_seconds(engine, ids, new_tokens)
    decided = engine.last_forecast
    assert decided is not None
    forecast = forecast_duration(engine.shape, len(ids), decided.strategy, rates)
    return {
        "tokens": len(ids),
        "chunk_tokens": decided.strategy.chunk_tokens,
        "read_seconds": {"forecast": forecast.prefill_seconds, "real": real_read},
        "token_seconds": {"forecast": forecast.token_seconds, "real": real_token},
        "rates": asdict(rates),
    }


def report(rows: list[dict[str, Any]]) -> str:
    """A table: for each length forecast, real, and how far off."""
    lines = [
        f"{'tokens':>8}  {'read: forecast':>14}  {'real':>8}  {'off':>6}  "
        f"{'token: forecast':>15}  {'real':>8}  {'off':>6}"
    ]
    for row in rows:
        cells = [f"{row['tokens']:>8,}"]
        for what, unit, factor, width in (
            ("read_seconds", "s", 1.0, 14),
            ("token_seconds", "ms", 1e3, 15),
        ):
            forecast, real = row[what]["forecast"], row[what]["real"]
            cells += [
                f"{f'{forecast * factor:.2f} {unit}':>{width}}",
                f"{f'{real * factor:.2f} {unit}':>8}",
                f"{forecast / real - 1:>+6.0%}",
            ]
        lines.append("  ".join(cells))
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[2000, 4000, 8000])
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    engine = Engine.load(arguments.model, EngineConfig(lookup="off"))
    assert engine.tokenizer is not None
    text = engine.tokenizer(distinct_text(), verbose=False, add_special_tokens=False).input_ids
    engine.generate_ids(text[:200], max_new_tokens=4)
    rows = [measure(engine, text[:tokens], arguments.new_tokens) for tokens in arguments.tokens]
    print(report(rows))
    result = {
        **record.describe_run(),
        "suite": "forecast",
        "model": arguments.model,
        "dtype": str(engine.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "rows": rows,
    }
    if arguments.save:
        print(f"added to {record.append('forecast', result)}")
    else:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
