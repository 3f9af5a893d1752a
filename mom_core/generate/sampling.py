"""Choosing the next token from its logits, with transformers' own logits processors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from mom_core.config import SamplingConfig


class Sampler:
    """Draws tokens under one `SamplingConfig`.

    Args:
        config: how to choose.
        context_ids: tokens already in the context, for the repetition penalty.
    """

    def __init__(self, config: SamplingConfig, context_ids: Sequence[int]) -> None:
        self._config = config
        self._random = torch.Generator()
        if config.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(config.seed)
        self._processors = _processors(config)
        # The penalty asks only which tokens occur, so each is listed once: the list stays
        # shorter than the vocabulary however long the document is.
        self._is_penalised = config.repetition_penalty != 1.0
        self._seen = set(context_ids) if self._is_penalised else set[int]()
        self._added: list[int] = []
        # Their list where the logits are, `[1, V]`, filled so far; made with the first token.
        self._listed: Tensor | None = None

    def choose(self, logits: Tensor) -> int:
        """The next token's id.

        Args:
            logits: `[V]`, fp32, any device.
        """
        if self._processors:
            logits = self._processors(self._list_seen(logits), logits.unsqueeze(0))[0]
        if self._config.is_greedy:
            token_id = int(logits.argmax())
        else:
            probabilities = torch.softmax(logits, dim=-1).cpu()
            token_id = int(torch.multinomial(probabilities, 1, generator=self._random))
        if self._is_penalised and self._listed is not None and token_id not in self._seen:
            self._listed[0, len(self._seen)] = token_id
            self._seen.add(token_id)
            self._added.append(token_id)
        return token_id

    def mark(self) -> tuple[int, Tensor | None]:
        """Where the draws are, for `rewind`."""
        return len(self._added), None if self._config.is_greedy else self._random.get_state()

    def rewind(self, mark: tuple[int, Tensor | None]) -> None:
        """Forgets what was chosen since; the next draw is the one that followed the mark."""
        added, state = mark
        self._seen.difference_update(self._added[added:])
        del self._added[added:]
        if state is not None:
            self._random.set_state(state)

    def _list_seen(self, logits: Tensor) -> Tensor:
        """`[1, n]`, the tokens that occur, on the device of the logits."""
        if self._listed is None:
            self._listed = torch.empty(1, len(logits), dtype=torch.long, device=logits.device)
            seen = torch.tensor(sorted(self._seen), dtype=torch.long)
            self._listed[0, : len(seen)] = seen
        return self._listed[:, : len(self._seen)]


def _processors(config: SamplingConfig) -> LogitsProcessorList:
    """In the order `generate` of transformers applies them."""
    processors = LogitsProcessorList()
    if config.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
    if config.is_greedy:
        return processors
    if config.temperature != 1.0:
        processors.append(TemperatureLogitsWarper(float(config.temperature)))
    if config.top_k:
        processors.append(TopKLogitsWarper(config.top_k))
    if config.top_p < 1.0:
        processors.append(TopPLogitsWarper(config.top_p))
    if config.min_p > 0.0:
        processors.append(MinPLogitsWarper(config.min_p))
    return processors
