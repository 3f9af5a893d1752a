"""Loading models from GGUF files."""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from mom_core.errors import ModelUnavailable, MomError
from mom_core.kv.oom import full_memory
from mom_core.model.checkpoint import FETCH_AGAIN, first_line, no_room, quiet, require_whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_gguf(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and tokenizer of a GGUF file; the model is dequantised to fp32, on the CPU.

    Args:
        path: the file.

    Raises:
        ModelUnavailable: weights are missing.
    """
    # The GGUF reader ignores transformers' setting, and draws its progress bar on stderr.
    with quiet(), contextlib.redirect_stderr(io.StringIO()):
        model = require_whole(
            AutoModelForCausalLM.from_pretrained(
                str(path.parent),
                gguf_file=path.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float32,
                output_loading_info=True,
            )
        )
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    return model, tokenizer


@contextlib.contextmanager
def gguf_errors_as_sentences(path: Path) -> Iterator[None]:
    """Turns any error in reading a GGUF file into a `MomError`.

    Args:
        path: the file, for the message.
    """
    try:
        yield
    except MomError:
        raise
    except Exception as error:
        # GGUF readers trust the file, so a damaged one can raise any error.
        if full_memory(error) is not None:
            raise no_room(path.name) from error
        reason = "It ends too early." if isinstance(error, struct.error) else first_line(error)
        raise ModelUnavailable(
            f"The file {path} cannot be read as a GGUF model: {reason} {FETCH_AGAIN}"
        ) from error
