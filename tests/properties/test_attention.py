"""Attention over any split into segments equals attention over the whole."""

from __future__ import annotations

import itertools
import math
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import mom_core.attention as attention
import mom_core.partial_attention as partial
from mom_core.attention import Segment, segment_attention
from mom_core.kv.mapped import MappedFiles
from mom_core.partial_attention import merge_partials
from tests.properties.dense import dense

FILES = MappedFiles(Path(tempfile.gettempdir()))
HEADS = st.sampled_from([(9, 3), (4, 4), (4, 1), (6, 2)])


def placed(part: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The same numbers on one of the tiers."""
    if torch.randint(2, (), generator=generator):
        return part
    moved = FILES.empty(*part.shape, dtype=part.dtype)
    return moved.copy_(part)


@settings(max_examples=200, deadline=None)
@given(
    heads=HEADS,
    past=st.integers(0, 70),
    new=st.integers(1, 40),
    cuts=st.lists(st.integers(1, 100), max_size=5),
    window=st.one_of(st.none(), st.integers(1, 60)),
    softcap=st.one_of(st.none(), st.just(5.0)),
    with_sinks=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    seed=st.integers(0, 1000),
)
def test_any_split_equals_the_whole(
    heads: tuple[int, int],
    past: int,
    new: int,
    cuts: list[int],
    window: int | None,
    softcap: float | None,
    with_sinks: bool,
    dtype: torch.dtype,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    (h, g), total = heads, past + new

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    query, keys, values = draw(1, h, new, 16) * 3, draw(1, g, total, 16), draw(1, g, total, 16)
    sinks = draw(h) if with_sinks else None
    bounds = sorted({0, total, *(cut for cut in cuts if cut < total)})
    # Some in memory, some in mapped files, in any order.
    segments = [
        Segment(a, *(placed(x[:, :, a:b], generator) for x in (keys, values)))
        for a, b in itertools.pairwise(bounds)
    ]
    ours = segment_attention(
        query, past, segments, scale=0.25, window=window, softcap=softcap, sinks=sinks
    )
    exact = [None if sinks is None else sinks.double()]
    truth = dense(query.double(), keys.double(), values.double(), past, window, softcap, *exact)
    # A sink is weighed against a log-sum-exp in fp32; bf16 rounds weights, partials and result.
    allowed = {torch.float64: 2e-5 if with_sinks else 1e-9, torch.float32: 2e-5}
    assert ours.dtype is dtype
    assert torch.allclose(ours.double(), truth, rtol=0, atol=allowed.get(dtype, 3e-2))


@settings(max_examples=60, deadline=None)
@given(
    past=st.integers(0, 900),
    new=st.integers(1, 600),
    cuts=st.lists(st.integers(1, 1500), max_size=5),
    window=st.one_of(st.none(), st.integers(1, 700)),
)
def test_masks_are_no_larger_than_what_they_hide_needs(
    past: int, new: int, cuts: list[int], window: int | None
) -> None:
    """Wherever segments begin, no mask covers keys that every query sees."""
    shapes: list[torch.Size] = []
    whole = attention._band_mask

    def noted(*args: Any) -> torch.Tensor:
        mask = whole(*args)
        shapes.append(mask.shape)
        seen_by_all = mask.all(dim=0)
        # All see a key that lies before the queries and inside every window.
        assert not seen_by_all[: max(0, past - args[2].start)].any()
        return mask

    keys = torch.zeros(1, 1, past + new, 8)
    bounds = sorted({0, past + new, *(cut for cut in cuts if cut < past + new)})
    segments = [Segment(a, keys[:, :, a:b], keys[:, :, a:b]) for a, b in itertools.pairwise(bounds)]
    with mock.patch.object(attention, "_band_mask", noted):
        segment_attention(keys[:, :, :new], past, segments, scale=1.0, window=window)
    block = new if window is None else min(new, max(window, attention._SMALLEST_WINDOW_BLOCK))
    columns = block if window is None else window + block
    assert all(queries <= block and seen <= columns for queries, seen in shapes)


@pytest.mark.parametrize("tokens", [4097, 6000])
def test_long_contexts_split_for_balance(tokens: int) -> None:
    torch.manual_seed(0)
    query = torch.randn(1, 9, 1, 64)
    keys, values = torch.randn(1, 3, tokens, 64), torch.randn(1, 3, tokens, 64)
    ours = segment_attention(query, tokens - 1, [Segment(0, keys, values)], scale=0.25)
    truth = dense(query, keys, values, tokens - 1, None, None, None)
    assert torch.allclose(ours, truth, atol=1e-5)


def test_a_partial_that_saw_nothing_takes_no_weight() -> None:
    output, lse = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3)
    nothing = torch.zeros(1, 2, 3, 4), torch.full((1, 2, 3), -math.inf)
    for merged in (
        merge_partials((output, lse), nothing),
        merge_partials(nothing, (output, lse)),
    ):
        assert torch.equal(merged[0], output)
        assert torch.equal(merged[1], lse)
    assert torch.equal(merge_partials(nothing, nothing)[0], nothing[0])


@settings(max_examples=60, deadline=None)
@given(
    heads=HEADS,
    past=st.integers(0, 60),
    new=st.integers(1, 40),
    window=st.one_of(st.none(), st.integers(1, 60)),
    scores_bytes=st.sampled_from([1, 400, 3_000, 20_000]),
    least_keys=st.sampled_from([1, 7, 1000]),
)
def test_dense_attention_does_not_depend_on_its_blocks(
    heads: tuple[int, int],
    past: int,
    new: int,
    window: int | None,
    scores_bytes: int,
    least_keys: int,
) -> None:
    (h, g), total = heads, past + new
    torch.manual_seed(total)
    query, keys = torch.randn(1, h, new, 16) * 3, torch.randn(1, g, total, 16)
    # Values of another width than keys: no kernel takes them.
    values = torch.randn(1, g, total, 12)
    with (
        mock.patch.object(partial, "_SCORES_BYTES", scores_bytes),
        mock.patch.object(partial, "_LEAST_KEYS", least_keys),
    ):
        ours = segment_attention(
            query, past, [Segment(0, keys, values)], scale=0.25, window=window, softcap=5.0
        )
    truth = dense(query, keys, values, past, window, 5.0, None)
    assert torch.allclose(ours, truth, atol=2e-5)


class _Largest(TorchDispatchMode):
    """Notes the largest result of any operation."""

    n_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple) else (result,):
            if isinstance(tensor, torch.Tensor) and not tensor._is_view():
                self.n_bytes = max(self.n_bytes, tensor.nbytes)
        return result


@pytest.mark.parametrize(("queries", "keys"), [(300, 3000), (1, 40_000), (700, 700)])
def test_dense_attention_holds_a_block_of_scores(queries: int, keys: int) -> None:
    bound = 1 << 18
    query, kv = torch.randn(1, 4, queries, 16), torch.randn(1, 2, keys, 16)
    with mock.patch.object(partial, "_SCORES_BYTES", bound), _Largest() as largest:
        attention.partial_attention(
            query, kv, kv, scale=0.2, is_causal=queries == keys, softcap=5.0
        )
    assert bound / 4 < largest.n_bytes <= bound
    # At once it would be more.
    assert 4 * 4 * queries * keys > 2 * bound


@pytest.mark.parametrize(
    ("capability", "dtype", "kernel"),
    [
        ((7, 5), torch.float16, "_cuda_efficient"),
        ((7, 5), torch.bfloat16, "_dense_partial"),
        ((8, 0), torch.bfloat16, "flash"),
        ((8, 0), torch.float32, "_cuda_efficient"),
    ],
)
def test_gpus_without_flash_attention_take_another_kernel(
    capability: tuple[int, int], dtype: torch.dtype, kernel: str
) -> None:
    gpu = torch.device("cuda", 0)
    called: list[str] = []

    def noted(name: str) -> Any:
        return lambda *args, **kwargs: called.append(name) or args[:2]

    query = mock.Mock(device=gpu, dtype=dtype, shape=torch.Size([1, 2, 9, 64]))
    partial.is_recent_gpu.cache_clear()
    with (
        mock.patch.object(torch.cuda, "get_device_capability", return_value=capability) as asked,
        mock.patch.object(partial, "_cuda_efficient", noted("_cuda_efficient")),
        mock.patch.object(partial, "_dense_partial", noted("_dense_partial")),
        mock.patch.object(torch.ops.aten, "_scaled_dot_product_flash_attention", noted("flash")),
        mock.patch.object(partial, "_unfold", lambda found, *_: found),
    ):
        for _ in range(3):
            partial._cuda_partial(query, query, query, 1.0, True, None)
        assert asked.call_count == 1
    partial.is_recent_gpu.cache_clear()
    assert called == [kernel] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("past", "new", "cuts", "window", "softcap", "with_sinks"),
    [
        (0, 40, [], None, None, False),
        (0, 40, [], 9, None, False),
        (0, 300, [], 20, None, False),
        (60, 40, [30, 80], None, None, False),
        (0, 40, [], None, None, True),
        (0, 40, [], None, 5.0, False),
        (99, 1, [], None, None, False),
        (2999, 1, [], None, None, False),
        (99, 1, [40], None, None, False),
    ],
)
def test_gradients_are_those_of_the_textbook(
    past: int,
    new: int,
    cuts: list[int],
    window: int | None,
    softcap: float | None,
    with_sinks: bool,
    dtype: torch.dtype,
) -> None:
    """Kernels without a backward pass, or none for the log-sum-exp, would lose them silently."""
    torch.manual_seed(new)
    total = past + new
    drawn = (torch.randn(1, 6, new, 16), *(torch.randn(1, 2, total, 16) for _ in range(2)))
    ours = [tensor.to(dtype).requires_grad_() for tensor in drawn]
    truth = [tensor.detach().double().requires_grad_() for tensor in ours]
    sinks = torch.randn(6, dtype=torch.float64) if with_sinks else None
    bounds = sorted({0, total, *cuts})
    segments = [
        Segment(a, ours[1][:, :, a:b], ours[2][:, :, a:b]) for a, b in itertools.pairwise(bounds)
    ]
    output = segment_attention(
        ours[0], past, segments, scale=0.25, window=window, softcap=softcap, sinks=sinks
    )
    weight = torch.randn(output.shape)
    (output.double() * weight).sum().backward()
    (dense(*truth, past, window, softcap, sinks) * weight).sum().backward()
    for tensor, exact in zip(ours, truth, strict=True):
        assert tensor.grad is not None
        assert exact.grad is not None
        error = (tensor.grad.double() - exact.grad).norm() / exact.grad.norm()
        assert error < (2e-2 if dtype is torch.bfloat16 else 1e-5)
