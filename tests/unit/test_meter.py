"""One reading: by tier and kind, without a card and with one of each make."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import pytest
import torch

from mom_core import Engine, EngineConfig, Meter, Token
from mom_core.hardware.gpu import Card, MetalCard, find_card
from mom_core.held_bytes import HeldBytes
from tests.equivalence.models import make_prompt, shared_model

GIB = 2**30


def test_bytes_are_told_by_tier_and_kind(tmp_path: Path) -> None:
    config = EngineConfig(kv="disk", hidden="disk", chunk_tokens=8, scratch_folder=tmp_path)
    engine = Engine(shared_model("llama"), config=config)
    meter = Meter(engine)
    reading = engine.generate(make_prompt(40), max_new_tokens=4)
    next(reading)
    while_reading = meter.sample()
    # Hidden states `[40, 48]` in fp32; without a GPU files are as near as memory: no layer is
    # copied to be attended to.
    assert while_reading.disk_activations_bytes == 40 * 48 * 4
    assert while_reading.host_activations_bytes == 0
    while not isinstance(next(reading), Token):
        pass
    sample = meter.sample()
    assert sample.disk_kv_bytes == engine.context.kv_bytes == sample.disk_used_bytes > 0
    assert sample.host_kv_bytes == sample.device_kv_bytes == 0
    assert sample.host_weights_bytes == engine.held_bytes.of_kind("weights")
    assert sample.device_name is sample.device_reserved_bytes is None
    reading.close()
    engine.close()
    assert meter.sample().disk_used_bytes == 0


class FakeEngine:
    device = torch.device("cuda")
    held_bytes: ClassVar[HeldBytes] = HeldBytes(
        {
            ("device", "weights"): 4 * GIB,
            ("host", "weights"): 10 * GIB,
            ("device", "kv"): GIB,
            ("host", "kv"): 2 * GIB,
            ("disk", "kv"): 3 * GIB,
            ("device", "hidden"): GIB // 2,
        }
    )


def cuda(**also: Any) -> Any:
    """torch.cuda as on a machine with a card of 24 GiB, 6 of them allocated."""
    properties = mock.Mock(total_memory=24 * GIB, uuid="1")
    properties.name = "Card"
    return mock.patch.multiple(
        torch.cuda,
        is_available=lambda: True,
        current_device=lambda: 0,
        get_device_properties=lambda index: properties,
        mem_get_info=lambda index: (10 * GIB, 24 * GIB),
        memory_allocated=lambda: 6 * GIB,
        memory_reserved=lambda: 8 * GIB,
        max_memory_allocated=lambda: 7 * GIB,
        **also,
    )


def test_a_card_is_read_without_nvidia_where_it_is_not_nvidia() -> None:
    with cuda(), mock.patch.object(torch.version, "hip", "7.0"):
        sample = Meter(FakeEngine()).sample()
    assert (sample.device_name, sample.device_total_bytes) == ("Card", 24 * GIB)
    assert sample.device_used_bytes == 14 * GIB
    assert (sample.device_peak_bytes, sample.device_reserved_bytes) == (7 * GIB, 8 * GIB)
    assert sample.device_weights_bytes == 4 * GIB
    # What torch has allocated beyond weights and KV.
    assert sample.device_activations_bytes == GIB
    assert sample.host_weights_bytes == 10 * GIB
    assert (sample.host_kv_bytes, sample.disk_kv_bytes) == (2 * GIB, 3 * GIB)


def test_an_nvidia_card_is_found_by_its_uuid() -> None:
    pynvml = pytest.importorskip("pynvml")
    memory = mock.Mock(used=9 * GIB, total=24 * GIB)
    with (
        cuda(),
        mock.patch.object(pynvml, "nvmlInit"),
        mock.patch.object(pynvml, "nvmlDeviceGetHandleByUUID", return_value="handle") as by_uuid,
        mock.patch.object(pynvml, "nvmlDeviceGetMemoryInfo", return_value=memory),
    ):
        card = find_card()
        assert card is not None
        assert card.used_bytes() == 9 * GIB
    by_uuid.assert_called_once_with("GPU-1")
    assert type(card) is Card


def test_apples_gpu_keeps_the_highest_reading() -> None:
    with (
        mock.patch.object(torch.mps, "recommended_max_memory", return_value=16 * GIB),
        mock.patch.object(torch.mps, "driver_allocated_memory", return_value=5 * GIB),
        mock.patch.object(torch.mps, "current_allocated_memory", side_effect=[3 * GIB, GIB, GIB]),
    ):
        card = MetalCard()
        assert card.allocated_bytes() == 3 * GIB
        assert card.peak_bytes() == 3 * GIB
        card.reset_peak()
        assert card.peak_bytes() == GIB
        assert (card.reserved_bytes(), card.total_bytes) == (5 * GIB, 16 * GIB)
