"""bf16 weights by way of fp32, where the CPU multiplies bf16 slowly: the same products."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import mom_core.native.linear as cpu_linear
from mom_core import Engine, EngineConfig
from mom_core.model.seam import decoder
from tests.equivalence.models import make_model, make_prompt, plain_logits


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("part_bytes", [1, 4 * 48 * 7, 1 << 20])
def test_parts_make_the_whole(
    monkeypatch: pytest.MonkeyPatch, part_bytes: int, with_bias: bool
) -> None:
    monkeypatch.setattr(cpu_linear, "_PART_BYTES", part_bytes)
    torch.manual_seed(0)
    rows, weight = torch.randn(1, 33, 48).bfloat16(), torch.randn(20, 48).bfloat16()
    bias = torch.randn(20).bfloat16() if with_bias else None
    truth = rows.double() @ weight.double().T + (0 if bias is None else bias.double())
    result = cpu_linear.wide_linear(rows, weight, bias)
    assert result.dtype is torch.bfloat16
    assert torch.allclose(result.double(), truth, rtol=2**-8, atol=1e-4)


def test_a_model_read_that_way_is_as_near_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    wide_linear = cpu_linear.wide_linear

    def counted(rows: torch.Tensor, *args: Any) -> torch.Tensor:
        taken.append(rows.shape[1])
        return wide_linear(rows, *args)

    for module in (decoder, cpu_linear):
        monkeypatch.setattr(module, "is_wide_faster", lambda: True)
    monkeypatch.setattr(cpu_linear, "wide_linear", counted)
    half, exact = make_model("qwen3").bfloat16(), make_model("qwen3").bfloat16().float()
    engine = Engine(half, config=EngineConfig(chunk_tokens=16))
    ours = theirs = 0.0
    for seed in range(24):
        prompt = make_prompt(40, seed)
        truth = plain_logits(exact, prompt)
        ours += float((engine.logits(prompt) - truth).square().mean().log())
        theirs += float((plain_logits(half, prompt).float() - truth).square().mean().log())
    assert (ours - theirs) / 24 / 2 < 0.1
    # The last chunk has eight rows: reading the weights once is all there is to it.
    assert set(taken) == {16}
    assert not any("forward" in vars(module) for module in half.modules())
