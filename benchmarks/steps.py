"""What each step of reading and answering costs as the document grows: only attention may grow
more than linearly.

    python -m benchmarks.steps [--tokens 50000 100000 200000 400000] [--kv disk] [--save]

The document is read, tokenised and asked about twice with the model of `long_model`. Every step
is timed where it is called, the time of steps inside it taken out. Printed: CPU seconds of each
step (of all cores together) at each length, its growth from the shortest to the longest relative
to the length's (1.0 is linear), and one JSON line, which `--save` appends to
`benchmarks/results/steps.jsonl`.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import transformers

from app.documents import read
from app.prompt.prompt import PromptBuilder
from benchmarks import record
from benchmarks.long_model import make_document, make_long_model
from benchmarks.resident import reset_resident_peak, resident_bytes, resident_peak_bytes
from mom_core import Context, Engine, EngineConfig, Finished, Token
from mom_core.generate.detokenize import StreamDetokenizer
from mom_core.generate.lookup import PromptLookup
from mom_core.generate.sampling import Sampler
from mom_core.kv.store import LayerKV
from mom_core.kv.transfer import HiddenStates
from mom_core.model.load import load_model
from mom_core.model.seam import attention
from mom_core.model.seam.decoder import HFSeam

NEW_TOKENS = 16
CHUNK_TOKENS = 1024

# What is timed: the owner, its attribute, the step's name.
_STEPS: list[tuple[object, str, str]] = [
    (Engine, "_check_ids", "check ids"),
    (Context, "common_prefix_tokens", "common prefix"),
    (attention, "segment_attention", "attention"),
    (HFSeam, "embed", "embeddings and positions"),
    (HFSeam, "run_layer", "layers without attention"),
    (HFSeam, "head", "head"),
    (LayerKV, "append", "write keys and values"),
    (HiddenStates, "write", "write hidden states"),
    (Sampler, "__init__", "make sampler"),
    (Sampler, "choose", "choose token"),
    (PromptLookup, "draft", "lookup index and drafts"),
    (StreamDetokenizer, "push", "detokenise"),
]


class Stopwatch:
    """Adds up the time of each step, without that of the steps inside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = [0.0]

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Times one step."""
        started = time.process_time()
        self._inner.append(0.0)
        try:
            yield
        finally:
            whole = time.process_time() - started
            self.seconds[name] += whole - self._inner.pop()
            self._inner[-1] += whole

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The functions of `_STEPS` are timed inside."""

        def timed(function: Callable[..., Any], name: str) -> Callable[..., Any]:
            @functools.wraps(function)
            def run(*args: Any, **kwargs: Any) -> Any:
                with self.step(name):
                    return function(*args, **kwargs)

            return run

        patches = [
            mock.patch.object(owner, name, timed(getattr(owner, name), step))
            for owner, name, step in _STEPS
        ]
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in patches:
                patch.stop()


def measure(folder: Path, document_path: Path, config: EngineConfig) -> dict[str, Any]:
    """Seconds of each step for one document, and what memory it took."""
    loaded = load_model(str(folder), dtype=torch.float32)
    engine = Engine(loaded.model, loaded.tokenizer, config)
    assert engine.tokenizer is not None
    engine.generate_ids([1, 2, 3], max_new_tokens=4)
    engine.context.crop(0)
    watch = Stopwatch()
    with watch.step("read text"):
        document = read(document_path)
    builder = PromptBuilder(engine.tokenizer)
    builder.tokenize(read(Path(__file__)))
    with watch.step("tokenise"):
        tokenized = builder.tokenize(document)
    with watch.step("build prompt"):
        prompt = builder.build([tokenized], [], "What is it about?")
    reset_resident_peak()
    before_bytes = resident_bytes()
    with watch.watching(), watch.step("rest of the first answer"):
        first = _answer(engine, prompt)
    with watch.step("build prompt"):
        prompt = builder.build([tokenized], [], "And what else?")
    started = time.process_time()
    with watch.watching(), watch.step("rest of the second answer"):
        second = _answer(engine, prompt)
    return {
        "tokens": first.prompt_tokens,
        "reused_tokens": second.reused_tokens,
        "seconds": dict(watch.seconds),
        "second_answer_seconds": time.process_time() - started,
        "kv_bytes": engine.context.kv_bytes,
        "hidden_bytes": first.prompt_tokens * _hidden_bytes_per_token(engine),
        "disk_bytes": engine.held_bytes["disk", "kv"],
        "peak_bytes": resident_peak_bytes() - before_bytes,
    }


def _hidden_bytes_per_token(engine: Engine) -> int:
    return int(engine.shape.hidden) * engine.dtype.itemsize


def _answer(engine: Engine, prompt: Any) -> Finished:
    events = list(engine.generate(prompt.token_ids, max_new_tokens=NEW_TOKENS))
    assert sum(isinstance(event, Token) for event in events) == NEW_TOKENS
    finished = events[-1]
    assert isinstance(finished, Finished)
    return finished


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    lengths = [50_000, 100_000, 200_000, 400_000]
    parser.add_argument("--tokens", type=int, nargs="+", default=lengths)
    parser.add_argument("--kv", default="device", choices=["device", "host", "disk"])
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    # One chunk size for all lengths: its calls are then as many as the tokens.
    config = EngineConfig(kv=arguments.kv, hidden=arguments.kv, chunk_tokens=CHUNK_TOKENS)
    with tempfile.TemporaryDirectory() as name:
        folder, document = Path(name) / "model", Path(name) / "document.txt"
        make_long_model(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        runs = []
        for tokens in arguments.tokens:
            make_document(document, tokens, tokenizer)
            runs.append(measure(folder, document, config))
    report(runs)
    result = {**record.describe_run(), "suite": "steps", "kv": arguments.kv, "runs": runs}
    if arguments.save:
        print(f"added to {record.append('steps', result)}")
    else:
        print(json.dumps(result))


def report(runs: list[dict[str, Any]]) -> None:
    """A table: steps by lengths, and how each grows."""
    growth = runs[-1]["tokens"] / runs[0]["tokens"]
    print(
        f"{'CPU seconds at tokens':28}"
        + "".join(f"{run['tokens']:>12,}" for run in runs)
        + "  growth"
    )
    for step in sorted(runs[-1]["seconds"], key=lambda step: -runs[-1]["seconds"][step]):
        seconds = [run["seconds"].get(step, 0.0) for run in runs]
        factor = seconds[-1] / max(seconds[0], 1e-9) / growth
        print(f"{step:28}" + "".join(f"{s:>12.4f}" for s in seconds) + f"{factor:>8.2f}")
    extra = [(r["peak_bytes"] - r["kv_bytes"] - r["hidden_bytes"]) / r["tokens"] for r in runs]
    print("peak of resident memory beyond KV and hidden states,")
    print(f"{'bytes/token':28}" + "".join(f"{e:>12,.0f}" for e in extra))


if __name__ == "__main__":
    main()
