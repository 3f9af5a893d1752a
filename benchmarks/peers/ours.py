"""mom_core: one token a step for the figures it shares with the others, and with prompt lookup.

The dtype is the one that loading chooses here. What prompt lookup says is compared with one-token
decoding: in half precision two right ways to compute may differ, and then how near the two
likeliest tokens were is part of the sample.
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.peers.protocol import Answer, quotes, serve
from mom_core import Engine, EngineConfig, Finished, Token
from mom_core.native import kernels


class MomCore:
    """An engine and its own context.

    Args:
        threads: that torch may use.
    """

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self.engine = Engine.load("smollm2-135m", EngineConfig(lookup="off"))
        model = self.engine.model
        model.generation_config.eos_token_id = model.config.eos_token_id = []
        self.weights_bytes = self.engine.held_bytes.of_kind("weights")
        self._prompt: list[int] = []

    def clear(self) -> None:
        """Forgets the context."""
        self.engine.context.crop(0)

    def read(self, token_ids: list[int]) -> None:
        """What the context does not hold yet."""
        for _ in self.engine.read(token_ids):
            pass
        self._prompt = list(token_ids)

    def answer(self, tokens: int) -> Answer:
        """By the engine's own generate."""
        answer: list[int] = []
        steps = 0
        for event in self.engine.generate(self._prompt, max_new_tokens=tokens):
            if isinstance(event, Token):
                answer.append(event.token_id)
            elif isinstance(event, Finished):
                steps = event.decode_steps
        return Answer(answer, steps)

    def kv_bytes(self, tokens: int) -> int:
        """Of the tokens held; what is reserved beyond is not touched yet."""
        return self.engine.context.kv_bytes * tokens // max(1, self.engine.context.tokens)


def load(job: dict[str, Any]) -> MomCore:
    """As the job says."""
    return MomCore(job["workload"]["threads"])


def add_lookup(peer: MomCore, job: dict[str, Any], sample: dict[str, Any]) -> None:
    """The same quotations with prompt lookup, and where they differ from one token a step."""
    engine, workload = peer.engine, job["workload"]
    sample["dtype"] = str(engine.dtype).removeprefix("torch.")
    sample["has_native_kernels"] = kernels() is not None
    engine.configure(EngineConfig(lookup="auto"))
    sample["lookup_quotes"] = quotes(peer, workload)
    sample["lookup_differences"] = [
        difference
        for ids, one, many in zip(
            workload["quote_ids"], sample["quotes"], sample["lookup_quotes"], strict=True
        )
        if (difference := first_difference(engine, ids, one["token_ids"], many["token_ids"]))
    ]


def first_difference(
    engine: Engine, prompt_ids: list[int], one: list[int], many: list[int]
) -> dict[str, Any] | None:
    """Where two answers part, and how near the two likeliest tokens are there.

    Args:
        engine: for the logits.
        prompt_ids: before the answers.
        one: by one token a step.
        many: with drafts.

    Returns:
        None if they are equal. Else the place in the answer, the gap between the two likeliest
        tokens, the rounding of the larger logit in the model's dtype, and whether both answers
        took one of the two and these lie within two roundings of each other.
    """
    if one == many:
        return None
    place = next(i for i, (a, b) in enumerate(zip(one, many, strict=True)) if a != b)
    logits = engine.logits([*prompt_ids, *one[:place]])
    top = torch.topk(logits, 2)
    gap = float(top.values[0] - top.values[1])
    # Half of the spacing of numbers of that size.
    rounding = float(
        torch.finfo(engine.dtype).eps / 2 * 2 ** torch.log2(top.values[0].abs()).floor()
    )
    return {
        "place": place,
        "gap": gap,
        "rounding": rounding,
        "is_within_rounding": gap <= 2 * rounding
        and {one[place], many[place]} == set(top.indices.tolist()),
    }


if __name__ == "__main__":
    serve(load, add_lookup)
