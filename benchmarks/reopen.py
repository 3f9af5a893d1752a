"""Reopening against reading again, and what keeping a reading costs: the built-in model.

    python -m benchmarks.reopen [--tokens 8000] [--times 12] [--save]

Each measurement is a process of its own, after the model is loaded: from the question to the first
token, once by reading and once from the library; and reading with and without keeping. What keeping
costs is little beside what one reading differs from the next, so the two are compared round by
round, in turns which is first; the middle of the ratios counts, and half of them lie between the
quartiles. To be run while nothing else is.

Source: ours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from app.library.library import Library
from app.library.reuse import Reuse
from benchmarks.record import append, describe_run
from benchmarks.workloads import make_workload
from mom_core import Engine, Finished, Token

_MODEL = "smollm2-135m"
_NEW_TOKENS = 16


def measure(home: Path | None, tokens: int) -> dict[str, Any]:
    """One question in this process: seconds to the first token and to the end, and the answer.

    Args:
        home: the library's folder; None keeps and finds nothing.
        tokens: length of the prompt.
    """
    engine = Engine.load(_MODEL)
    assert engine.tokenizer is not None
    work = make_workload(engine.tokenizer, tokens=tokens, new_tokens=_NEW_TOKENS, threads=0)
    ids = work.prompt_ids
    engine.generate_ids(work.warm_ids, max_new_tokens=2)
    engine.context.crop(0)
    reuse = None if home is None else Reuse(Library(home))
    started = time.perf_counter()
    if reuse is None:
        events = engine.generate(ids, max_new_tokens=_NEW_TOKENS)
    else:
        events = reuse.generate(engine, ids, max_new_tokens=_NEW_TOKENS)
    answer, first_seconds, finished = [], 0.0, None
    for event in events:
        if isinstance(event, Token):
            first_seconds = first_seconds or time.perf_counter() - started
            answer.append(event.token_id)
        elif isinstance(event, Finished):
            finished = event
    seconds = time.perf_counter() - started
    if reuse is not None:
        reuse.close()
    assert finished is not None
    return {
        "first_token_seconds": first_seconds,
        "seconds": seconds,
        "saved_after_seconds": time.perf_counter() - started - seconds,
        "reused_tokens": finished.reused_tokens,
        "answer": answer,
    }


def run(tokens: int, times: int) -> dict[str, Any]:
    """All measurements, in turns, and their ratios.

    Args:
        tokens: length of the prompt.
        times: how often each is done.
    """
    samples: dict[str, list[dict[str, Any]]] = {"read": [], "read and keep": [], "reopen": []}
    orders = (["read", "read and keep", "reopen"], ["read and keep", "read", "reopen"])
    for turn in range(times):
        with tempfile.TemporaryDirectory() as folder:
            for kind in orders[turn % 2]:
                home = "" if kind == "read" else folder
                command = [sys.executable, "-m", "benchmarks.reopen", "--child", home]
                result = subprocess.run(
                    [*command, "--tokens", str(tokens)], capture_output=True, text=True, check=True
                )
                samples[kind].append(json.loads(result.stdout))
    answers = {tuple(sample["answer"]) for found in samples.values() for sample in found}
    if len(answers) != 1:
        raise AssertionError(f"answers differ: {answers}")
    if any(sample["reused_tokens"] != tokens for sample in samples["reopen"]):
        raise AssertionError("the library was not used")

    def ratios(kind: str, to: str) -> list[float]:
        """Times of one kind over another's, round by round."""
        pairs = zip(samples[kind], samples[to], strict=True)
        return [one["first_token_seconds"] / other["first_token_seconds"] for one, other in pairs]

    shares = [ratio - 1 for ratio in ratios("read and keep", "read")]
    lower, _, upper = statistics.quantiles(shares, n=4)
    return {
        **describe_run(),
        "tokens": tokens,
        "samples": samples,
        "times_faster": statistics.median(ratios("read", "reopen")),
        "keeping_share": statistics.median(shares),
        "keeping_share_quartiles": [lower, upper],
    }


def main() -> None:
    """Prints how much faster reopening is, and what keeping costs."""
    parser = argparse.ArgumentParser(description="Reopening against reading again.")
    parser.add_argument("--tokens", type=int, default=8000)
    parser.add_argument("--times", type=int, default=12)
    parser.add_argument("--save", action="store_true", help="add a line to benchmarks/results")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        home = Path(arguments.child) if arguments.child else None
        print(json.dumps(measure(home, arguments.tokens)))
        return
    result = run(arguments.tokens, arguments.times)
    if arguments.save:
        append("reopen", result)
    print(f"reopening {arguments.tokens:,} tokens: {result['times_faster']:.0f} x as fast")
    lower, upper = result["keeping_share_quartiles"]
    print(
        f"keeping a reading: {result['keeping_share']:+.1%} of its time "
        f"(half of the rounds between {lower:+.1%} and {upper:+.1%})"
    )


if __name__ == "__main__":
    main()
