"""What a peer can do, and the one way every peer is measured.

A peer's process reads a workload as JSON from stdin and prints one sample as JSON. This module
imports nothing but the standard library: a peer may live in an interpreter of its own.

Extra peak memory is the process's highest resident memory while it reads the prompt, less what it
held before the model was loaded, less the weights and the keys and values.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from difflib import SequenceMatcher
from functools import partial
from typing import Any, NamedTuple, Protocol

from benchmarks.resident import reset_resident_peak, resident_bytes, resident_peak_bytes


class Answer(NamedTuple):
    """Greedy tokens after the context.

    Args:
        token_ids: the first of them was known when reading ended.
        steps: how often the model was run for the others.
    """

    token_ids: list[int]
    steps: int


class Peer(Protocol):
    """A model and one context."""

    weights_bytes: int

    def clear(self) -> None:
        """Forgets the context."""

    def read(self, token_ids: list[int]) -> None:
        """Makes the context hold exactly these tokens, reading what is new, up to the logits."""

    def answer(self, tokens: int) -> Answer:
        """Goes on greedily; no token ends it. The last one need not be read."""

    def kv_bytes(self, tokens: int) -> int:
        """What it holds in keys and values for a context of so many tokens."""


def measure(peer: Peer, workload: dict[str, Any], before_bytes: int) -> dict[str, Any]:
    """One sample.

    Args:
        peer: loaded.
        workload: `workloads.Workload` as a dictionary.
        before_bytes: resident memory before the model was loaded.
    """
    new_tokens = workload["new_tokens"]
    peer.read(workload["warm_ids"])
    peer.answer(4)
    sample: dict[str, Any] = {}
    for label, ids in (("short", workload["short_ids"]), ("long", workload["prompt_ids"])):
        peer.clear()
        reset_resident_peak()
        reading = _seconds(partial(peer.read, ids))
        extra = resident_peak_bytes() - before_bytes - peer.weights_bytes
        sample[f"{label}_first_token_seconds"] = reading
        sample[f"{label}_prefill_tokens_per_second"] = len(ids) / reading
        sample[f"{label}_extra_peak_bytes"] = extra - peer.kv_bytes(len(ids))
        started = time.perf_counter()
        answer = peer.answer(new_tokens)
        sample[f"{label}_decode_tokens_per_second"] = _per_second(answer, started)
    context = [*workload["prompt_ids"], *answer.token_ids, *workload["follow_up_ids"]]
    sample["follow_up_first_token_seconds"] = _seconds(partial(peer.read, context))
    sample["quotes"] = quotes(peer, workload)
    return sample


def quotes(peer: Peer, workload: dict[str, Any]) -> list[dict[str, Any]]:
    """Answers each prompt that asks to repeat a passage."""
    passages = zip(workload["quote_ids"], workload["quoted_ids"], strict=True)
    return [_quote(peer, ids, passage, workload["quote_tokens"]) for ids, passage in passages]


def _quote(
    peer: Peer, prompt_ids: list[int], passage_ids: list[int], tokens: int
) -> dict[str, Any]:
    peer.read(prompt_ids)
    started = time.perf_counter()
    answer = peer.answer(tokens)
    speed = _per_second(answer, started)
    matcher = SequenceMatcher(None, answer.token_ids, passage_ids, autojunk=False)
    quoted = sum(block.size for block in matcher.get_matching_blocks())
    return {
        # Of the answer, in the passage's order: whether it really quotes.
        "quoted_share": quoted / tokens,
        "decode_tokens_per_second": speed,
        "tokens_per_step": (len(answer.token_ids) - 1) / answer.steps,
        "token_ids": answer.token_ids,
    }


def serve(
    load: Callable[[dict[str, Any]], Peer], and_then: Callable[..., None] | None = None
) -> None:
    """The life of a peer's process.

    Args:
        load: makes the peer from the job: a workload and what only this peer needs.
        and_then: adds to the sample what only this peer has; gets peer, job and sample.
    """
    job = json.load(sys.stdin)
    before_bytes = resident_bytes()
    peer = load(job)
    sample = measure(peer, job["workload"], before_bytes)
    if and_then is not None:
        and_then(peer, job, sample)
    # The rest of stdout belongs to libraries.
    print("\n" + json.dumps(sample))


def _seconds(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _per_second(answer: Answer, started: float) -> float:
    """The first token fell out of the reading, so it does not count."""
    return (len(answer.token_ids) - 1) / (time.perf_counter() - started)
