"""Where a model's weights go once they are read."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

from mom_core.model import load


class Quantised(nn.Linear):
    """As bitsandbytes in 8 bits: `to` is refused."""

    hf_quantizer = object()

    def to(self, *args: Any, **kwargs: Any) -> Any:
        raise ValueError("`.to` is not supported for 8-bit models")


@pytest.mark.parametrize("leaves_layers", [True, False])
def test_quantised_weights_that_are_placed_stay(leaves_layers: bool, monkeypatch: Any) -> None:
    # The device stands for a GPU.
    device = torch.device("meta")
    monkeypatch.setattr(load, "_device", lambda: device)
    read = load.LoadedModel(Quantised(4, 4, device=device), mock.Mock(), "tiny")  # type: ignore[arg-type]
    monkeypatch.setattr(load, "_read", lambda source, dtype: read)
    assert load.load_model("tiny", leaves_layers=leaves_layers) is read


@pytest.mark.parametrize("is_quantised", [True, False])
def test_weights_on_the_host_are_moved(is_quantised: bool, monkeypatch: Any) -> None:
    device = torch.device("meta")
    monkeypatch.setattr(load, "_device", lambda: device)
    model = nn.Linear(4, 4)
    if is_quantised:
        model.hf_quantizer = object()  # type: ignore[assignment]
    read = load.LoadedModel(model, mock.Mock(), "tiny")  # type: ignore[arg-type]
    monkeypatch.setattr(load, "_read", lambda source, dtype: read)
    assert load.load_model("tiny") is read
    assert model.weight.device == device
