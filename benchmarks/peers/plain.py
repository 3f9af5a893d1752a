"""Plain transformers: `sdpa` attention, a `DynamicCache`, logits of the last token only."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache

from benchmarks.peers.protocol import Answer, serve
from mom_core.model.load import load_model


class PlainTransformers:
    """One model and one growing cache.

    Args:
        dtype: for weights and cache.
        threads: that torch may use.
    """

    def __init__(self, dtype: torch.dtype, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model = load_model("smollm2-135m", dtype=dtype).model.eval()
        self.weights_bytes = sum(p.numel() * p.element_size() for p in self._model.parameters())
        self.clear()

    def clear(self) -> None:
        """Forgets the context."""
        self._cache = DynamicCache(config=self._model.config)
        self._held: list[int] = []
        self._next = -1

    def read(self, token_ids: list[int]) -> None:
        """The longest common prefix stays; the rest is run in one call."""
        common = 0
        for mine, theirs in zip(self._held, token_ids[:-1], strict=False):
            if mine != theirs:
                break
            common += 1
        if common < len(self._held):
            self._cache.crop(common - len(self._held))
        self._run(token_ids[common:])
        self._held = list(token_ids)

    def answer(self, tokens: int) -> Answer:
        """One call of the model a token."""
        answer = [self._next]
        while len(answer) < tokens:
            self._held.append(self._next)
            self._run([self._next])
            answer.append(self._next)
        return Answer(answer, tokens - 1)

    def kv_bytes(self, tokens: int) -> int:
        """Of keys and values in every layer."""
        config = self._model.config
        width = config.num_hidden_layers * config.num_key_value_heads * config.head_dim
        return int(2 * width * tokens * self._model.dtype.itemsize)

    @torch.no_grad()
    def _run(self, token_ids: list[int]) -> None:
        ids = torch.tensor([token_ids])
        logits = self._model(ids, past_key_values=self._cache, logits_to_keep=1).logits
        self._next = int(logits[0, -1].argmax())


def load(job: dict[str, Any]) -> PlainTransformers:
    """As the job says."""
    return PlainTransformers(getattr(torch, job["dtype"]), job["workload"]["threads"])


if __name__ == "__main__":
    serve(load)
