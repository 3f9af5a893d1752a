"""A model's files that are empty, cut short or damaged: a sentence, never another model."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from gguf import GGUFWriter

from benchmarks.long_model import make_long_model
from mom_core.errors import ModelUnavailable, MomError, OutOfMemory, UnsupportedModel
from mom_core.model import load
from mom_core.model.load import find_config, load_model

WIDTH, MLP_WIDTH = 32, 64
# Names of GGUF, and rows and columns.
LAYER = {
    "attn_norm": (WIDTH,),
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (WIDTH, WIDTH),
    "attn_v": (WIDTH, WIDTH),
    "attn_output": (WIDTH, WIDTH),
    "ffn_norm": (WIDTH,),
    "ffn_gate": (MLP_WIDTH, WIDTH),
    "ffn_up": (MLP_WIDTH, WIDTH),
    "ffn_down": (WIDTH, MLP_WIDTH),
}


def write_gguf(path: Path, without: str = "") -> None:
    """A whole GGUF file of a tiny Llama, but for one weight."""
    writer = GGUFWriter(str(path), "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(MLP_WIDTH)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e4)
    writer.add_rope_dimension_count(16)
    tokens = ["<s>", "</s>", "a", "b", "ab"]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_merges(["a b"])
    writer.add_token_types([1] * len(tokens))
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    numbers = numpy.random.default_rng(0)
    shapes = {
        "token_embd": (len(tokens), WIDTH),
        "output_norm": (WIDTH,),
        **{f"blk.0.{name}": shape for name, shape in LAYER.items()},
    }
    for name, shape in shapes.items():
        if name != without:
            weight = numbers.standard_normal(shape).astype(numpy.float32)
            writer.add_tensor(f"{name}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_whole_gguf_file_is_read(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf")
    loaded = load_model(str(tmp_path / "a.gguf"), dtype=torch.float32)
    assert loaded.model.config.hidden_size == WIDTH
    assert loaded.tokenizer("ab").input_ids


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: b"", "cannot mmap an empty file"),
        (lambda data: b"Dear all, this is a letter.\n" * 99, "so it is not a GGUF file"),
        (lambda data: b"GGUF", "It ends too early"),
        (lambda data: data[:100], "It ends too early"),
        (lambda data: data[: len(data) // 2], "cannot reshape"),
        (lambda data: data[:-1], "size"),
    ],
    ids=["empty", "text", "magic", "header", "half of the weights", "last byte"],
)
def test_a_gguf_file_that_is_not_whole_is_a_sentence(
    damage: Callable[[bytes], bytes], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.gguf"
    write_gguf(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelUnavailable, match=words) as told:
        load_model(str(path), dtype=torch.float32)
    assert str(told.value).startswith(f"The file {path} cannot be read as a GGUF model: ")
    assert "fetch it again" in str(told.value)


def test_a_damaged_gguf_header_is_a_sentence_for_a_plan_too(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    write_gguf(path)
    assert find_config(str(path))[0].hidden_size == WIDTH
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(
        ModelUnavailable, match=r"It ends too early\. If its download was cut short"
    ):
        find_config(str(path))


def test_bits_that_flip_anywhere_are_never_another_error(tmp_path: Path) -> None:
    path, state = tmp_path / "a.gguf", random.Random(1)
    write_gguf(path)
    whole = path.read_bytes()
    # Of the model's numbers transformers would make weights as large as they say.
    words = range(whole.index(b"tokenizer.ggml.model"), whole.index(b"token_embd"))
    shapes = range(words.stop, whole.index(b"blk.0.ffn_norm"))
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        place = state.choice(state.choice([range(24), words, shapes]))
        data[place] ^= 1 << state.randrange(8)
        path.write_bytes(data)
        try:
            load_model(str(path), dtype=torch.float32)
        except MomError:
            refused += 1
    assert refused > 20


def test_weights_that_are_missing_are_never_made_up(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", without="blk.0.ffn_up")
    words = r"lack 1 of its weights, such as model.layers.0.mlp.up_proj.weight"
    with pytest.raises(ModelUnavailable, match=words):
        load_model(str(tmp_path / "a.gguf"), dtype=torch.float32)
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    make_long_model(folder)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelUnavailable, match=r"lack 1 of its weights, such as model.layers.1"):
        load_model(str(folder), dtype=torch.float32)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "model"
    make_long_model(folder)
    return folder


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
@pytest.mark.parametrize("length", [0, 5, 300])
def test_a_folder_whose_files_are_cut_short_is_a_sentence(
    name: str, length: int, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    (folder / name).write_bytes((folder / name).read_bytes()[:length])
    with pytest.raises((ModelUnavailable, UnsupportedModel), match=r"The (files of the )?model "):
        load_model(str(folder), dtype=torch.float32)


def test_weights_that_find_no_memory_are_a_sentence(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(load.AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(OutOfMemory, match="memory is full: the weights of model do not fit"):
        load_model(str(whole), dtype=torch.float32)
