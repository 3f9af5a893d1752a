"""llama.cpp through `llama-cpp-python`: the same Q4_1 file, flash attention, the same token ids.

It needs nothing but that package, so it may run in an interpreter of its own.
"""

from __future__ import annotations

import importlib.metadata
import os
from typing import Any

import llama_cpp
import numpy as np

from benchmarks.peers.protocol import Answer, Peer, serve


class LlamaCpp:
    """One model and one context of fixed capacity.

    Args:
        gguf: path of the model.
        capacity_tokens: the context's.
        threads: for reading and answering.
    """

    def __init__(self, gguf: str, capacity_tokens: int, threads: int) -> None:
        self._llama = llama_cpp.Llama(
            gguf,
            n_ctx=capacity_tokens,
            n_threads=threads,
            n_threads_batch=threads,
            flash_attn=True,
            verbose=False,
        )
        self.weights_bytes = os.path.getsize(gguf)
        self._held: list[int] = []

    def clear(self) -> None:
        """Forgets the context."""
        self._held = []

    def read(self, token_ids: list[int]) -> None:
        """The longest common prefix stays, as its own `generate` does."""
        common = llama_cpp.Llama.longest_token_prefix(self._held, token_ids[:-1])
        self._llama.n_tokens = common
        self._llama.eval(token_ids[common:])
        self._held = list(token_ids)

    def answer(self, tokens: int) -> Answer:
        """One step a token, greedily from the logits: its sampler chain would cost more."""
        answer = [self._likeliest()]
        while len(answer) < tokens:
            self._held.append(answer[-1])
            self._llama.eval(answer[-1:])
            answer.append(self._likeliest())
        return Answer(answer, tokens - 1)

    def kv_bytes(self, tokens: int) -> int:
        """All of it was taken, and written, when the context was made: fp16."""
        metadata = self._llama.metadata
        heads = int(metadata["llama.attention.head_count"])
        head_dim = int(metadata["llama.embedding_length"]) // heads
        kv_heads = int(metadata["llama.attention.head_count_kv"])
        layers = int(metadata["llama.block_count"])
        capacity = int(self._llama.n_ctx())
        return 2 * layers * kv_heads * head_dim * capacity * 2

    def _likeliest(self) -> int:
        logits = llama_cpp.llama_get_logits_ith(self._llama.ctx, -1)
        return int(np.ctypeslib.as_array(logits, shape=(self._llama.n_vocab(),)).argmax())


def load(job: dict[str, Any]) -> LlamaCpp:
    """As the job says."""
    return LlamaCpp(job["gguf"], job["capacity_tokens"], job["workload"]["threads"])


def add_version(peer: Peer, job: dict[str, Any], sample: dict[str, Any]) -> None:
    """It may be another interpreter's, so the suite cannot know it."""
    sample["version"] = importlib.metadata.version("llama-cpp-python")


if __name__ == "__main__":
    serve(load, add_version)
