"""The exactness receipt, and what happens to a model that nobody tested."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
import transformers

import mom_core.engine as engine_module
from mom_core import Engine, InvalidSetting, UnsupportedModel, memory_saving
from mom_core.verify import TESTED_MODEL_TYPES
from tests.equivalence.models import FAMILIES, make_model, make_prompt, shared_model
from tests.equivalence.without import without

_TINY: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": None,
}


def test_every_type_called_tested_has_a_family() -> None:
    types = {shared_model(family).get_decoder().config.model_type for family in FAMILIES}
    assert types == TESTED_MODEL_TYPES


@pytest.mark.parametrize("family", FAMILIES)
def test_receipts(family: str) -> None:
    receipt = Engine(shared_model(family)).verify(make_prompt(30))
    assert receipt.is_exact
    assert receipt.plain_top == receipt.our_top
    assert receipt.largest_difference < 1e-5
    assert str(receipt).startswith("exact: after 30 tokens the logits differ by at most ")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_receipts_in_half_precision(dtype: torch.dtype) -> None:
    # A family on whose logits a wrong scale weighs twice the tolerance.
    engine = Engine(make_model("mistral").to(dtype))
    assert engine.verify(make_prompt(30)).is_exact
    with without("scale", engine.model):
        assert not engine.verify(make_prompt(30)).is_exact


def test_a_receipt_leaves_the_context_alone() -> None:
    engine = Engine(shared_model("llama"))
    engine.logits(make_prompt(12))
    engine.verify(make_prompt(30, seed=1))
    assert engine.context.token_ids == tuple(make_prompt(12))
    with pytest.raises(InvalidSetting, match="at least two"):
        engine.verify([1])


def test_an_unknown_family_that_is_right_is_let_in() -> None:
    """OLMo (the first) has no test of its own."""
    model = transformers.OlmoForCausalLM(transformers.OlmoConfig(**_TINY)).eval()
    assert model.config.model_type not in TESTED_MODEL_TYPES
    assert len(Engine(model).generate_ids(make_prompt(9), max_new_tokens=3)) == 3


def test_an_unknown_family_that_is_wrong_is_refused() -> None:
    model = make_model("gemma2")
    with mock.patch.object(engine_module, "TESTED_MODEL_TYPES", frozenset()):
        Engine(model)
        with (
            without("softcap", model),
            pytest.raises(UnsupportedModel, match=r"gemma2.*NOT exact: after 40 tokens.*allowed"),
        ):
            Engine(model)


def test_a_model_that_breaks_when_run_in_parts_is_refused() -> None:
    model = make_model("llama")
    kind = type(model.model.layers[0])

    class WantsAll(kind):  # type: ignore[misc, valid-type]
        def forward(self, hidden: Any, *args: Any, **kwargs: Any) -> Any:
            if hidden.shape[1] != 40:
                raise IndexError("the whole sequence, please")
            return super().forward(hidden, *args, **kwargs)

    model.model.layers[0].__class__ = WantsAll
    with (
        mock.patch.object(engine_module, "TESTED_MODEL_TYPES", frozenset()),
        pytest.raises(UnsupportedModel, match="failed: IndexError: the whole sequence"),
    ):
        Engine(model)


def test_a_window_that_only_the_mask_knows_of_is_refused() -> None:
    """PhiMoE's window is longer than the made-up prompt, and its attention does not get it."""
    config = transformers.PhimoeConfig(**_TINY, sliding_window=64, num_local_experts=2)
    model = transformers.PhimoeForCausalLM(config).eval()
    words = "has a window of 64 tokens, but it asks the attention 'mom' for no window"
    with pytest.raises(UnsupportedModel, match=words):
        Engine(model)
    with pytest.raises(UnsupportedModel, match=words), memory_saving(model):
        pass


@pytest.mark.parametrize(
    ("name", "extra", "words"),
    [
        ("GPT2", {}, "not a decoder-only language model with a list of layers"),
        ("Llama4Text", {"num_local_experts": 2}, "not a decoder-only language model"),
        ("Gemma3nText", {"num_kv_shared_layers": 1}, "keys and values of other layers"),
        ("Mamba2", {"num_heads": 12, "head_dim": 8, "n_groups": 1, "state_size": 8}, "mamba2"),
    ],
)
def test_families_that_cannot_be_run_get_a_sentence(
    name: str, extra: dict[str, Any], words: str
) -> None:
    config = getattr(transformers, f"{name}Config")(**{**_TINY, **extra})
    model_name = {"Llama4Text": "Llama4", "Gemma3nText": "Gemma3n"}.get(name, name)
    head = "LMHeadModel" if name == "GPT2" else "ForCausalLM"
    model = getattr(transformers, model_name + head)(config).eval()
    with pytest.raises(UnsupportedModel, match=words):
        Engine(model)


def test_chunked_attention_is_refused() -> None:
    model = make_model("qwen3")
    model.config.layer_types = ["chunked_attention", "full_attention", "full_attention"]
    model.config.attention_chunk_size = 8
    with pytest.raises(UnsupportedModel, match=r"cannot run exactly \(chunked attention\)"):
        Engine(model)
