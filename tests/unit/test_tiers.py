"""How pinned memory is cut, and which stream is waited for."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

import mom_core.kv.tiers as tiers
from mom_core.kv.store import KVStore, LayerKV
from mom_core.kv.tiers import Tier, pinned_piece_tokens
from mom_core.kv.transfer import HiddenStates, Lanes

MIB = 1 << 20


class AsPinned(Tier):
    """A pinned tier without a GPU."""

    def empty(self, *shape: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype)


def pieces(tokens: int, bytes_per_token: int) -> list[int]:
    """Bytes of each buffer until all tokens have room."""
    sizes, left = [], tokens
    while left > 0:
        cut = pinned_piece_tokens(left, bytes_per_token)
        assert cut <= left
        sizes.append(cut * bytes_per_token)
        left -= cut
    return sizes


def rounded(n_bytes: int) -> int:
    """What the pinned allocator takes."""
    return 1 << (n_bytes - 1).bit_length()


@pytest.mark.parametrize("bytes_per_token", [2048, 1536, 3 * 64 * 2, 1024])
@pytest.mark.parametrize("tokens", [1, 9_000, 100_000, 400_000, 1_000_003])
def test_few_pinned_pieces_and_little_waste(tokens: int, bytes_per_token: int) -> None:
    sizes = pieces(tokens, bytes_per_token)
    wanted_bytes = tokens * bytes_per_token
    assert len(sizes) <= max(1, (wanted_bytes // (16 * MIB)).bit_length() + 1)
    # All but the last fill what the allocator gives, up to a row; the last as much as before.
    assert all(rounded(size) - size < bytes_per_token for size in sizes[:-1])
    equal = 16 * MIB // bytes_per_token * bytes_per_token
    before = [equal] * (wanted_bytes // equal) + [wanted_bytes % equal or equal]
    assert sum(map(rounded, sizes)) <= sum(map(rounded, before))


def test_a_layer_of_a_long_context_has_a_handful_of_segments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiers, "_SMALLEST_PINNED_BYTES", 1 << 10)
    layer = LayerKV(AsPinned("host", torch.device("cpu"), is_pinned=True, is_remote=True))
    layer.reserve(4000)
    keys = torch.randn(1, 2, 3700, 4)
    for part in keys.split(300, dim=2):
        layer.append(part, part)
    segments = layer.segments()
    assert [s.keys.shape[2] for s in segments] == [2048, 1024, 512, 116]
    assert torch.equal(torch.cat([s.keys for s in segments], dim=2), keys)


@pytest.mark.parametrize("rows", [1, 7, 64, 300])
def test_hidden_states_lie_in_pieces_too(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks begin and end anywhere among the pieces."""
    monkeypatch.setattr(tiers, "_SMALLEST_PINNED_BYTES", 1 << 10)
    tier, device = (
        AsPinned("host", torch.device("cpu"), is_pinned=True, is_remote=True),
        torch.device("cpu"),
    )
    hidden = HiddenStates(tier, device, Lanes(device), tokens=300, width=8, dtype=torch.float32)
    assert len(hidden._pieces) == 3
    assert hidden.used_bytes == 300 * 8 * 4
    whole = torch.randn(1, 300, 8)
    starts = range(0, 300, rows)
    for start in starts:
        hidden.write(start, whole[:, start : start + rows])
    read = [hidden.read(start, min(start + rows, 300)) for start in starts]
    assert torch.equal(torch.cat(read, dim=1), whole)


def filled_store(tier: Tier) -> KVStore:
    store = KVStore(2, tier)
    for layer in store.keys_and_values:
        layer.append(torch.ones(1, 1, 5, 4), torch.ones(1, 1, 5, 4))
    return store


def test_a_move_waits_for_the_stream_of_the_models_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be another than the current one."""
    gpu = torch.device("cuda", 1)
    stream = mock.Mock()
    monkeypatch.setattr(torch.cuda, "current_stream", stream)
    store = filled_store(AsPinned("device", gpu))
    store.move_to(AsPinned("host", torch.device("cpu"), is_pinned=True, is_remote=True))
    stream.assert_called_once_with(gpu)
    stream.return_value.synchronize.assert_called_once_with()


def test_a_move_that_fails_waits_for_what_came_back(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 1)
    stream = mock.Mock()
    monkeypatch.setattr(torch.cuda, "current_stream", stream)
    host = AsPinned("host", torch.device("cpu"), is_pinned=True, is_remote=True)
    store = filled_store(host)
    taken: list[Tier] = []

    def moved_to(layer: LayerKV, tier: Tier) -> Any:
        if tier.name == "device":
            if taken:
                raise MemoryError
            taken.append(tier)
        return plain(layer, tier)

    plain = LayerKV.moved_to
    monkeypatch.setattr(LayerKV, "moved_to", moved_to)
    with pytest.raises(MemoryError):
        store.move_to(AsPinned("device", gpu))
    assert [layer.tier for layer in store.keys_and_values] == [host, host]
    stream.assert_called_once_with(gpu)
    stream.return_value.synchronize.assert_called_once_with()
