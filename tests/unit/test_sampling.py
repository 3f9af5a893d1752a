"""How tokens are chosen."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from mom_core.config import SamplingConfig
from mom_core.generate.sampling import Sampler


@pytest.mark.parametrize("context_ids", [[], [3], [5, 2, 5, 40, 2]])
def test_the_penalty_falls_on_every_token_that_occurred(context_ids: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    sampler = Sampler(SamplingConfig(repetition_penalty=1.7), context_ids)
    penalty, occurred = RepetitionPenaltyLogitsProcessor(1.7), list(context_ids)
    for _ in range(60):
        logits = torch.randn(50, generator=generator)
        ids = torch.tensor([occurred], dtype=torch.long)
        expected = int(penalty(ids, logits.unsqueeze(0)).argmax())
        assert sampler.choose(logits) == expected
        occurred.append(expected)


def test_the_list_of_tokens_is_made_once() -> None:
    """It may be as long as the vocabulary: making it for each token is work for each token."""
    sampler = Sampler(SamplingConfig(repetition_penalty=1.1), range(1000))
    places = set[int]()
    whole = RepetitionPenaltyLogitsProcessor.__call__

    def noted(
        self: RepetitionPenaltyLogitsProcessor, ids: torch.Tensor, scores: torch.Tensor
    ) -> torch.Tensor:
        places.add(ids.data_ptr())
        return whole(self, ids, scores)

    with (
        mock.patch.object(RepetitionPenaltyLogitsProcessor, "__call__", noted),
        mock.patch.object(torch, "tensor", side_effect=torch.tensor) as made,
    ):
        for token in range(1000, 1020):
            logits = torch.zeros(2000)
            logits[token] = 9.0
            assert sampler.choose(logits) == token
    assert len(places) == 1
    assert made.call_count == 1
