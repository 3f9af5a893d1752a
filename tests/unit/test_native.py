"""The C kernels agree with torch on every shape, and nothing needs them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import mom_core.native as native
from mom_core import Engine
from mom_core.attention import Segment, segment_attention
from mom_core.native import build
from tests.equivalence.models import make_model, make_prompt


@pytest.fixture(scope="module")
def ours() -> native.Kernels:
    built = native.kernels()
    if built is None:
        pytest.skip("there is no C compiler here")
    return built


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (3, 15), (4, 16), (7, 33), (130, 576)])
def test_linear(
    ours: native.Kernels, outputs: int, inputs: int, rows: int, with_bias: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(outputs)
    row, weight = torch.randn(1, rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
    bias = torch.randn(outputs).to(dtype) if with_bias else None
    assert ours.takes_linear(row, weight, bias)
    truth = row.double() @ weight.double().T + (0 if bias is None else bias.double())
    result = ours.linear_rows(row, weight, bias)
    assert result.shape == (1, rows, outputs)
    # Half a unit in the last place of bf16, and what fp32 sums lose.
    rtol = 2**-8 if dtype is torch.bfloat16 else 1e-5
    assert torch.allclose(result.double(), truth, rtol=rtol, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("rows", [1, 3, 4, 9, 32])
@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 1000])
def test_attention(
    ours: native.Kernels, dtype: torch.dtype, heads: int, rows: int, tokens: int
) -> None:
    torch.manual_seed(tokens)
    query = torch.randn(1, heads, rows, 48) * 3
    # Keys as the store has them: a view of a longer buffer.
    keys = torch.randn(1, heads, tokens + 50, 48).to(dtype)[:, :, :tokens]
    values = torch.randn(1, heads, tokens + 9, 48).to(dtype)[:, :, 9:]
    assert ours.takes_attention(query, keys, values)
    scores = query.double() @ keys.double().mT * 0.3
    output, lse = ours.attend_rows(query, keys, values, 0.3)
    assert torch.allclose(output.double(), scores.softmax(-1) @ values.double(), atol=1e-5)
    assert torch.allclose(lse.double(), scores.logsumexp(-1), atol=1e-5)


@pytest.mark.parametrize("head_dim", [16, 48, 64, 80, 128, 256])
@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (6, 2)])
@pytest.mark.parametrize(("queries", "offset"), [(9, 0), (70, 0), (97, 203), (20, 300), (5, 290)])
@pytest.mark.parametrize("window", [None, 1, 50, 250])
def test_chunk_attention(
    ours: native.Kernels,
    head_dim: int,
    heads: int,
    kv_heads: int,
    queries: int,
    offset: int,
    window: int | None,
) -> None:
    """Causal order, windows and rows that see nothing, against the textbook formula."""
    if not ours.has_chunk_attention:
        pytest.skip("this CPU does not multiply bf16 in pairs")
    torch.manual_seed(queries)
    tokens = min(300, offset + queries)
    query = torch.randn(1, queries, heads, head_dim).mul(3).bfloat16().transpose(1, 2)
    keys = torch.randn(1, kv_heads, 350, head_dim).bfloat16()[:, :, 7 : 7 + tokens]
    values = torch.randn(1, kv_heads, 310, head_dim).bfloat16()[:, :, :tokens]
    assert ours.takes_chunk(query, keys, values)
    distance = torch.arange(queries)[:, None] + offset - torch.arange(tokens)
    hidden = (distance < 0) | (distance >= (window or 10**6))
    for softcap in (None, 20.0):
        group = heads // kv_heads
        scores = query.double() @ keys.double().repeat_interleave(group, 1).mT * 0.15
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        scores = scores.masked_fill(hidden, -math.inf)
        output, lse = ours.attend_chunk(
            query,
            keys,
            values,
            offset=offset,
            scale=0.15,
            window=window,
            softcap=softcap,
            dtype=torch.float32,
        )
        weights = scores.softmax(-1).nan_to_num(0.0)
        truth = weights @ values.double().repeat_interleave(group, 1)
        # Weights are rounded to bf16.
        assert torch.allclose(output.double(), truth, rtol=0, atol=2**-8 * 2)
        assert torch.allclose(lse.double(), scores.logsumexp(-1), rtol=0, atol=2e-5)


def test_huge_scores_stay_finite(ours: native.Kernels) -> None:
    query, keys = torch.full((1, 1, 1, 16), 1e4), torch.randn(1, 1, 300, 16)
    output, lse = ours.attend_rows(query, keys, keys, 1.0)
    assert output.isfinite().all()
    assert lse.isfinite().all()


def test_another_threads_default_dtype_does_no_harm(ours: native.Kernels) -> None:
    """Whoever makes a model anywhere changes it for all threads; buffers keep their size."""
    torch.manual_seed(0)
    query, keys = torch.randn(1, 2, 3, 48), torch.randn(1, 2, 200, 48)
    before = ours.attend_rows(query, keys, keys, 0.1)
    rows, weight = torch.randn(3, 64), torch.randn(96, 64)
    product = ours.linear_rows(rows, weight, None)
    torch.set_default_dtype(torch.bfloat16)
    try:
        output, lse = ours.attend_rows(query, keys, keys, 0.1)
        assert (output.dtype, lse.dtype) == (torch.float32, torch.float32)
        assert torch.allclose(output, before[0], atol=1e-6)
        assert torch.allclose(lse, before[1], atol=1e-6)
        assert torch.allclose(ours.linear_rows(rows, weight, None), product, atol=1e-5)
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_the_kernels_do_not_take(ours: native.Kernels) -> None:
    weight = torch.zeros(4, 4).bfloat16()
    assert not ours.takes_linear(torch.zeros(9, 4).bfloat16(), weight, None)
    assert not ours.takes_linear(torch.zeros(1, 4), weight, None)
    assert not ours.takes_linear(torch.zeros(1, 4).bfloat16(), weight.T, None)
    keys = torch.zeros(1, 1, 8, 16)
    assert not ours.takes_attention(torch.zeros(1, 1, 1, 24), torch.zeros(1, 1, 8, 24), keys)
    assert not ours.takes_attention(torch.zeros(1, 1, 33, 16), keys, keys)
    assert not ours.takes_attention(torch.zeros(1, 1, 1, 16), keys[..., ::1].mT.mT[:, :, ::2], keys)


def test_without_a_compiler_everything_works(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def nothing(*args: Any, **kwargs: Any) -> None:
        return None

    native.built_kernels.cache_clear()
    monkeypatch.setattr(build.shutil, "which", nothing)
    monkeypatch.setattr(build, "cache_folder", lambda: tmp_path)
    try:
        assert native.kernels() is None
        query, keys = torch.randn(1, 4, 1, 16), torch.randn(1, 2, 50, 16)
        assert segment_attention(query, 49, [Segment(0, keys, keys)], scale=0.2).isfinite().all()
        model = make_model("llama").bfloat16()
        assert len(Engine(model).generate_ids(make_prompt(9), max_new_tokens=3)) == 3
    finally:
        native.built_kernels.cache_clear()


def test_a_broken_compiler_is_survived(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    native.built_kernels.cache_clear()
    monkeypatch.setattr(build.shutil, "which", lambda name: "/bin/false")
    monkeypatch.setattr(build, "cache_folder", lambda: tmp_path)
    try:
        assert native.kernels() is None
    finally:
        native.built_kernels.cache_clear()
    assert not list(tmp_path.rglob("*.so"))


def test_the_model_gets_its_own_products_back() -> None:
    model = make_model("llama").bfloat16()
    Engine(model).generate_ids(make_prompt(9), max_new_tokens=3)
    assert not any("forward" in vars(module) for module in model.modules())
