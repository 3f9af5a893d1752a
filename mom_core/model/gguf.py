"""GGUF files, read whole or refused."""

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
    """Model (fp32, dequantised, on the CPU) and tokenizer of a GGUF file."""
    # The GGUF reader draws its bar on stderr whatever transformers' own setting.
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
    """Whatever goes wrong with a file, as a `MomError`."""
    try:
        yield
    except MomError:
        raise
    except Exception as error:
        # Its readers trust the file: what is damaged comes as any error there is.
        if full_memory(error) is not None:
            raise no_room(path.name) from error
        reason = "It ends too early." if isinstance(error, struct.error) else first_line(error)
        raise ModelUnavailable(
            f"The file {path} cannot be read as a GGUF model: {reason} {FETCH_AGAIN}"
        ) from error
