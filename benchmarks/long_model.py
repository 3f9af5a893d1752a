"""A model that reads 524,288 tokens and is made in a second, and documents of any length for it.

    python -m benchmarks.long_model FOLDER [--document FILE --tokens N]

Two layers, one head of 32, random weights: it has nothing to say, but what is done to a document
of 400,000 tokens is done to it: tokenised, read layer by layer, kept on each tier, answered from.
Its tokenizer is trained on the sample documents; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from mom_core.model.checkpoint import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WINDOW_TOKENS = 524_288
_VOCABULARY = 1024
_END = "<|end|>"
_SAMPLES = Path(__file__).parents[1] / "assets" / "samples"
_WORDS_A_LINE = 12
_LINES_AT_A_TIME = 200


def make_long_model(folder: Path) -> None:
    """Writes the model and its tokenizer, as `from_pretrained` reads them."""
    tokenizer = _trained_tokenizer()
    tokenizer.save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=WINDOW_TOKENS,
        rope_parameters={"rope_type": "default", "rope_theta": 1e7},
        # It never ends an answer by itself.
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    with quiet():
        transformers.LlamaForCausalLM(config).save_pretrained(folder)


def make_document(path: Path, tokens: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """Writes a text of about so many tokens, and at least so many, always the same."""
    words = _text().split()
    draw = random.Random(0)
    written = 0
    with path.open("w") as file:
        while written < tokens:
            lines = (
                " ".join(draw.choices(words, k=_WORDS_A_LINE)) for _ in range(_LINES_AT_A_TIME)
            )
            part = "\n".join(lines) + "\n"
            written += len(tokenizer(part, verbose=False).input_ids)
            file.write(part)


def _trained_tokenizer() -> PreTrainedTokenizerBase:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_text()], trainer)
    make: Callable[..., PreTrainedTokenizerBase] = transformers.PreTrainedTokenizerFast
    return make(tokenizer_object=tokenizer, eos_token=_END, model_max_length=WINDOW_TOKENS)


def _text() -> str:
    files = [_SAMPLES / "beekeeping-guide.md", *sorted((_SAMPLES / "tidebell").rglob("*.py"))]
    return "\n".join(path.read_text() for path in files)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--document", type=Path)
    parser.add_argument("--tokens", type=int, default=400_000)
    arguments = parser.parse_args()
    make_long_model(arguments.folder)
    if arguments.document is not None:
        tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.folder)
        make_document(arguments.document, arguments.tokens, tokenizer)


if __name__ == "__main__":
    main()
