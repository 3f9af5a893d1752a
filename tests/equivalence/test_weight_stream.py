"""Weights that come layer by layer: the same answer, and a model that is afterwards as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from mom_core import Engine, EngineConfig, InvalidSetting, Token, UnsupportedModel
from mom_core.model.seam.patches import move_all_but_layers
from mom_core.model.weight_stream import WeightStream
from tests.equivalence.models import (
    make_model,
    make_prompt,
    plain_greedy,
    plain_logits,
    relative_error,
)

STREAM = EngineConfig(weights="stream", chunk_tokens=8)


@pytest.mark.parametrize("family", ["llama", "qwen2-window", "mixtral", "gemma3", "qwen3.5"])
def test_streamed_weights_give_the_same_answer(family: str) -> None:
    model, prompt = make_model(family), make_prompt(40)
    truth, greedy = plain_logits(model, prompt), plain_greedy(model, prompt, 16)
    engine = Engine(model, config=STREAM)
    assert relative_error(engine.logits(prompt), truth) < 1e-4
    assert engine.generate_ids(prompt, max_new_tokens=16) == greedy
    assert engine.verify(prompt).is_exact
    engine.close()
    assert relative_error(plain_logits(model, prompt), truth) == 0


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_the_model_is_at_home_between_calls_and_as_before_at_the_end() -> None:
    model = make_model("llama")
    before, parameters = weights_of(model), dict(model.named_parameters())
    vars_before = {name: set(vars(module)) for name, module in model.named_modules()}
    engine = Engine(model, config=STREAM)
    weights = engine.seam.weights
    assert weights is not None
    events = engine.generate(make_prompt(20), max_new_tokens=6)
    while not isinstance(next(events), Token):
        pass
    events.close()
    slots = [slot.block.untyped_storage().data_ptr() for slot in weights._slots]
    assert len(slots) == 2
    for parameter in model.parameters():
        assert parameter.untyped_storage().data_ptr() not in slots
    engine.close()
    assert dict(model.named_parameters()) == parameters
    assert {name: set(vars(module)) for name, module in model.named_modules()} == vars_before
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
        assert tensor.is_contiguous()


def test_each_layer_comes_once_for_a_whole_prompt_and_once_for_each_token() -> None:
    model = make_model("llama")
    engine = Engine(model, config=EngineConfig(weights="stream", chunk_tokens=8, lookup="off"))
    came: list[int] = []
    bring = WeightStream._slot_of

    def noted(stream: WeightStream, layer: int, beside: Any = None) -> Any:
        if all(slot.layer != layer for slot in stream._slots):
            came.append(layer)
        return bring(stream, layer, beside)

    with mock.patch.object(WeightStream, "_slot_of", noted):
        engine.logits(make_prompt(40))
        # One ahead: the first is on its way for the token that follows.
        assert came == [0, 1, 2, 0]
        came.clear()
        engine.generate_ids(make_prompt(40), max_new_tokens=4)
    assert came == [1, 2, 0] * 3


def test_the_device_copy_is_what_is_computed_with() -> None:
    """A comparison proves something only where it can fail: with the copy left out, it does."""
    model, prompt = make_model("llama"), make_prompt(30)
    truth = plain_logits(model, prompt)
    engine = Engine(model, config=STREAM)
    weights = engine.seam.weights
    assert weights is not None
    engine.logits(prompt[:5])
    for slot in weights._slots:
        slot.block.zero_()
    engine.context.crop(0)
    assert relative_error(engine.logits(prompt), truth) > 1e-2


def test_bytes_are_told_by_where_they_are() -> None:
    model = make_model("llama")
    engine = Engine(model, config=STREAM)
    layer_bytes = sum(p.nbytes for p in model.model.layers[0].parameters())
    assert 3 * layer_bytes <= engine.held_bytes["host", "weights"] < 3 * layer_bytes + 4096
    assert engine.held_bytes["disk", "weights"] == 0
    outside = engine.held_bytes.of_kind("weights") - engine.held_bytes["host", "weights"]
    assert engine.held_bytes["device", "weights"] == outside
    engine.logits(make_prompt(9))
    assert engine.held_bytes["device", "weights"] == outside + 2 * (
        engine.held_bytes["host", "weights"] // 3
    )
    engine.configure(EngineConfig(weights="device"))
    assert engine.held_bytes["device", "weights"] == engine.held_bytes.of_kind("weights")
    assert engine.held_bytes["host", "weights"] == 0


def test_weights_beyond_the_cap_live_on_the_disk(tmp_path: Path) -> None:
    model, prompt = make_model("llama"), make_prompt(40)
    truth = plain_logits(model, prompt)
    config = EngineConfig(weights="stream", host_memory=1, scratch_folder=tmp_path)
    engine = Engine(model, config=config)
    assert engine.held_bytes["disk", "weights"] > 0 == engine.held_bytes["host", "weights"]
    engine.configure(EngineConfig(weights="stream", scratch_folder=tmp_path))
    assert engine.held_bytes["disk", "weights"] > 0
    assert relative_error(engine.logits(prompt), truth) < 1e-4
    engine.close()
    assert not list(tmp_path.glob("mom-chat-run-*"))
    assert relative_error(plain_logits(model, prompt), truth) == 0


def test_a_home_without_room_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model, prompt = make_model("llama"), make_prompt(20)
    truth = plain_logits(model, prompt)
    (tmp_path / "file").write_text("")
    config = EngineConfig(weights="stream", host_memory=1, scratch_folder=tmp_path / "file")
    with pytest.raises(InvalidSetting, match=r"The scratch folder .* is not writable"):
        Engine(model, config=config)
    assert relative_error(plain_logits(model, prompt), truth) == 0


def test_other_kinds_of_weights_are_refused() -> None:
    class Packed(torch.nn.Parameter):
        pass

    model = make_model("llama")
    linear = model.model.layers[1].mlp.up_proj
    linear.weight = Packed(linear.weight.data)
    before = weights_of(model)
    with pytest.raises(UnsupportedModel, match=r"quantised \(Packed\).*weights=\"device\""):
        Engine(model, config=STREAM)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_loading_can_leave_the_layers_where_they_are() -> None:
    """`meta` stands for a device that is another than the layers'."""
    model = make_model("llama")
    layers = model.model.layers
    move_all_but_layers(model, torch.device("meta"))
    assert model.model.layers is layers
    assert {p.device.type for p in layers.parameters()} == {"cpu"}
    rest = [p for name, p in model.named_parameters() if ".layers." not in name]
    assert {p.device.type for p in rest} == {"meta"}
