"""Quantised weights, as transformers users have them, pass through untouched."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

from mom_core import Engine, EngineConfig, memory_saving
from tests.equivalence.models import (
    make_model,
    make_prompt,
    plain_greedy,
    plain_logits,
    relative_error,
)


def quantised(dtype: torch.dtype) -> Any:
    model = make_model("llama").to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantization = pytest.importorskip("torchao.quantization")
        quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    assert type(model.model.layers[0].mlp.up_proj.weight.data) is not torch.Tensor
    return model


@pytest.mark.filterwarnings("ignore")
def test_int8_weights_of_torchao() -> None:
    model, prompt = quantised(torch.float32), make_prompt(40)
    before = {name: id(p) for name, p in model.named_parameters()}
    engine = Engine(model, config=EngineConfig(chunk_tokens=7))
    assert relative_error(engine.logits(prompt), plain_logits(model, prompt)) < 1e-4
    tokens = plain_greedy(model, prompt, 12)
    assert engine.generate_ids(prompt, max_new_tokens=12) == tokens
    with memory_saving(model, chunk_tokens=7):
        assert plain_greedy(model, prompt, 12) == tokens
    assert {name: id(p) for name, p in model.named_parameters()} == before
    unquantised = plain_logits(make_model("llama"), prompt)
    assert relative_error(plain_logits(model, prompt), unquantised) > 1e-3


@pytest.mark.filterwarnings("ignore")
def test_int8_weights_in_bf16() -> None:
    """Our kernels read weights where they lie: they must not take these for bf16."""
    engine = Engine(quantised(torch.bfloat16))
    assert not any(engine.seam.plain_layers())
    assert engine.verify(make_prompt(40)).is_exact


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bits", [4, 8])
def test_weights_of_bitsandbytes(bits: int, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    prompt = make_prompt(40)
    torch.manual_seed(7)
    # Widths are what blocks of 64 weights divide.
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    unquantised = LlamaForCausalLM(config).eval()
    unquantised.save_pretrained(tmp_path)
    model: Any = AutoModelForCausalLM.from_pretrained(
        tmp_path,
        quantization_config=BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8),
        dtype=torch.float32,
        device_map="cpu",
    )
    assert type(model.model.layers[0].mlp.up_proj.weight).__name__ in ("Params4bit", "Int8Params")
    # The first run packs the weights again, with whatever attention.
    truth = plain_logits(model, prompt)
    before = {name: id(p) for name, p in model.named_parameters()}
    # Its kernels round activations to 8 bits or to half precision.
    quantisation = relative_error(truth, plain_logits(unquantised, prompt))
    engine = Engine(model, config=EngineConfig(chunk_tokens=7))
    assert relative_error(engine.logits(prompt), truth) < quantisation / 10
    assert engine.generate_ids(prompt, max_new_tokens=12) == plain_greedy(model, prompt, 12)
    assert {name: id(p) for name, p in model.named_parameters()} == before
