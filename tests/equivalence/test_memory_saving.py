"""The paper's method as a block around plain transformers: same answers, less memory, no trace."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from transformers import AutoModelForCausalLM

import mom_core.mini_sequence as mini_sequence
from mom_core import InvalidSetting, UnsupportedModel, memory_saving
from mom_core.model.seam.plain import plain_next_logits
from tests.equivalence.models import (
    FAMILIES,
    make_model,
    make_prompt,
    plain_greedy,
    plain_logits,
    relative_error,
    shared_model,
)
from tests.equivalence.without import without

LENGTH = 29


@pytest.mark.parametrize("kv", ["device", "host"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_block_gives_the_same_answers(family: str, kv: Any) -> None:
    model, prompt = shared_model(family), make_prompt(LENGTH)
    logits, tokens = plain_logits(model, prompt), plain_greedy(model, prompt, 12)
    for chunk in (1, 7, 4096):
        with memory_saving(model, chunk_tokens=chunk, kv=kv):
            assert relative_error(plain_logits(model, prompt), logits) < 1e-4
            assert plain_greedy(model, prompt, 12) == tokens


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3.5"])
def test_keys_and_values_return_to_the_device_when_the_answer_begins(family: str) -> None:
    model, prompt = shared_model(family), make_prompt(LENGTH)
    tokens = plain_greedy(model, prompt, 12)
    homes = []
    with memory_saving(model, chunk_tokens=7, kv="host", kv_returns=True):
        assert plain_greedy(model, prompt, 12) == tokens
        cache = None
        for ids in (prompt, tokens[:1], tokens[1:2]):
            cache = model(torch.tensor([ids]), past_key_values=cache).past_key_values
            layer = next(layer.kv for layer in cache.layers if hasattr(layer, "kv"))
            homes.append((layer._home.tier.name, layer.tokens))
    assert homes == [("host", LENGTH), ("device", LENGTH + 1), ("device", LENGTH + 2)]


@pytest.mark.parametrize("family", ["llama", "gpt-oss", "qwen3.5"])
def test_the_block_leaves_no_trace(family: str) -> None:
    model, prompt = make_model(family), make_prompt(LENGTH)
    attention = model.config._attn_implementation
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    logits = plain_logits(model, prompt)
    model.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), memory_saving(model, chunk_tokens=4):
        plain_greedy(model, prompt, 3)
    model._forward_hooks.clear()
    assert model.config._attn_implementation == attention
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    assert torch.equal(plain_logits(model, prompt), logits)


@torch.no_grad()
def test_mini_sequences_are_as_long_as_asked_and_the_last_layer_runs_one_token() -> None:
    model = make_model("llama")
    seen: list[list[int]] = [[] for _ in model.model.layers]
    for index, layer in enumerate(model.model.layers):
        layer.mlp.up_proj.register_forward_hook(
            lambda _m, args, _o, index=index: seen[index].append(args[0].shape[1])
        )
    with memory_saving(model, chunk_tokens=8):
        model(torch.tensor([make_prompt(20)]))
    assert seen == [[8, 8, 4], [8, 8, 4], [1]]


@torch.no_grad()
def test_who_asks_for_all_positions_gets_them() -> None:
    model, ids = make_model("llama"), torch.tensor([make_prompt(20)])
    plain = model(ids, output_hidden_states=True)
    with memory_saving(model, chunk_tokens=8):
        assert model(ids).logits.shape[1] == 1
        ours = model(ids, output_hidden_states=True)
        every = model(ids, logits_to_keep=0).logits
        loss = model(ids, labels=ids).loss
    for mine, theirs in zip(ours.hidden_states, plain.hidden_states, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)
    assert torch.allclose(every, plain.logits, atol=1e-5)
    assert torch.allclose(loss, model(ids, labels=ids).loss, atol=1e-5)


@torch.no_grad()
def test_keys_and_values_are_written_once() -> None:
    """Room is appended to, never copied: the first token's place stays where it was."""
    model, ids = make_model("llama"), torch.tensor([make_prompt(20)])
    with memory_saving(model):
        cache = model(ids).past_key_values
        first = [layer.kv.segments()[0].keys.data_ptr() for layer in cache.layers]
        for _ in range(5):
            model(ids[:, :1], past_key_values=cache)
        assert cache.get_seq_length() == 25
        assert [layer.kv.segments()[0].keys.data_ptr() for layer in cache.layers] == first


def test_what_cannot_be_exact_is_refused() -> None:
    model = make_model("llama")
    ids = torch.tensor([make_prompt(6), make_prompt(6)])
    with memory_saving(model):
        with pytest.raises(UnsupportedModel, match="one sequence without padding"):
            model(ids)
        with pytest.raises(UnsupportedModel, match="one sequence without padding"):
            model(ids[:1], attention_mask=torch.tensor([[0, 1, 1, 1, 1, 1]]))
    with (
        pytest.raises(InvalidSetting, match="chunk_tokens is 0"),
        memory_saving(model, chunk_tokens=0),
    ):
        pass


def test_somebodys_own_forward_is_used_and_put_back() -> None:
    """Hooks of accelerate, adapters and the like replace a module's forward, too."""
    model, ids = make_model("llama"), torch.tensor([make_prompt(20)])
    mlp = model.model.layers[1].mlp
    plain, calls = mlp.forward, []

    def own(hidden: Any) -> Any:
        calls.append(hidden.shape[1])
        return 2 * plain(hidden)

    mlp.forward = own
    truth = plain_logits(model, make_prompt(20))
    calls.clear()
    with memory_saving(model, chunk_tokens=8), memory_saving(model, chunk_tokens=8):
        assert relative_error(model(ids).logits[0, -1], truth) < 1e-4
    assert calls == [8, 8, 4]
    assert mlp.forward is own
    assert torch.equal(plain_logits(model, make_prompt(20)), truth)


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_assisted_generation_takes_drafts_back(family: str) -> None:
    model, prompt = make_model(family), make_prompt(12) * 3
    ids = torch.tensor([prompt])
    settings = {"max_new_tokens": 16, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    truth = plain_greedy(model, prompt, 16)
    with memory_saving(model):
        mask = torch.ones_like(ids)
        found = model.generate(ids, attention_mask=mask, prompt_lookup_num_tokens=3, **settings)
    assert found[0, len(prompt) :].tolist() == truth


@torch.no_grad()
def test_masks_that_are_more_than_causal_are_refused() -> None:
    model, ids = make_model("llama"), torch.tensor([make_prompt(20)])
    packed = torch.arange(20).remainder(10)[None]
    alone = make_model("llama")
    alone.set_attn_implementation("mom")
    with memory_saving(model):
        # Only without a mask of its own does transformers look for packed sequences.
        with pytest.raises(UnsupportedModel, match="wants another mask"):
            model(ids, position_ids=packed, use_cache=False)
        with pytest.raises(UnsupportedModel, match="static cache"):
            model.generate(ids, max_new_tokens=3, cache_implementation="static", pad_token_id=0)
    with pytest.raises(UnsupportedModel, match="wants another mask"):
        alone(ids, position_ids=packed, use_cache=False)
    with pytest.raises(UnsupportedModel, match="static cache"):
        alone.generate(ids, max_new_tokens=3, cache_implementation="static", pad_token_id=0)


@torch.no_grad()
def test_images_are_refused() -> None:
    model, ids = make_model("gemma3-vision"), torch.tensor([make_prompt(20)])
    marks = torch.zeros_like(ids)
    with memory_saving(model):
        model(ids, token_type_ids=marks)
        marks[0, 4:9] = 1
        with pytest.raises(UnsupportedModel, match="wants another mask"):
            model(ids, token_type_ids=marks)


@torch.no_grad()
def test_a_cache_of_the_block_is_refused_outside() -> None:
    model, ids = make_model("llama"), torch.tensor([make_prompt(20)])
    with memory_saving(model):
        cache = model(ids).past_key_values
    with pytest.raises(UnsupportedModel, match="cache made inside memory_saving was used outside"):
        model(ids[:, :1], past_key_values=cache)
    with memory_saving(model):
        model(ids[:, :1], past_key_values=cache)


def test_an_unknown_family_is_tried_once_and_refused_unless_exact() -> None:
    model = make_model("gemma2")
    with mock.patch.object(mini_sequence, "TESTED_MODEL_TYPES", frozenset()):
        with (
            without("softcap", model),
            pytest.raises(UnsupportedModel, match=r"gemma2.*NOT exact"),
            memory_saving(model),
        ):
            pass
        with mock.patch.object(
            mini_sequence, "plain_next_logits", wraps=plain_next_logits
        ) as tried:
            for _ in range(2):
                with memory_saving(model):
                    plain_greedy(model, make_prompt(5), 2)
        assert tried.call_count == 1


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "qwen3.5"])
def test_the_attention_by_itself(family: str, tmp_path: Any) -> None:
    model, prompt = make_model(family), make_prompt(LENGTH)
    tokens = plain_greedy(model, prompt, 12)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="mom")
    assert loaded.config._attn_implementation == "mom"
    assert plain_greedy(loaded, prompt, 12) == tokens
    with pytest.raises(UnsupportedModel, match="without padding"):
        loaded(torch.tensor([prompt]), attention_mask=torch.tensor([[0] + [1] * (LENGTH - 1)]))
