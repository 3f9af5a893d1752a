"""Loads a model by name, hub id, folder or GGUF file, in the dtype that is fastest here.

It reads only safetensors and GGUF, and never runs code that comes with a model.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub.errors import HFValidationError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from mom_core.errors import ModelUnavailable, MomError, UnsupportedModel
from mom_core.kv.oom import full_memory
from mom_core.model.builtin import BUILTIN_NAME, ensure_builtin
from mom_core.model.catalogue import catalogue
from mom_core.model.checkpoint import FETCH_AGAIN, first_line, no_room, quiet, require_whole
from mom_core.model.dtype_probe import ModelSize, fastest_cpu_dtype
from mom_core.model.gguf import gguf_errors_as_sentences, load_gguf
from mom_core.model.seam.patches import move_all_but_layers

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready for an engine.

    Args:
        model: the model, on its device and in its dtype.
        tokenizer: tokenizer of the model.
        name: name shown to people.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str


def load_model(
    source: str,
    *,
    dtype: torch.dtype | None = None,
    leaves_layers: bool = False,
) -> LoadedModel:
    """Finds and loads a model.

    Args:
        source: "smollm2-135m", an id on the model hub, a folder, or a `.gguf` file.
        dtype: dtype of the weights. None chooses: on a GPU the checkpoint's own (bf16 for fp32
            checkpoints), on the CPU whichever of bf16 and fp32 a short probe finds faster.
        leaves_layers: whether the layers stay on the host, where all weights are read first. The
            engine then decides where the layers belong.

    Raises:
        ModelUnavailable: the files cannot be found, fetched or read.
        UnsupportedModel: the engine cannot run the model.
    """
    loaded = _read(source, dtype)
    device = _device()
    if device.type == "cpu" or _is_placed(loaded.model, device):
        return loaded
    if leaves_layers:
        move_all_but_layers(loaded.model, device)
    else:
        loaded.model.to(device)
    return loaded


def _is_placed(model: PreTrainedModel, device: torch.device) -> bool:
    """Whether transformers has put quantised weights on the device, as some cannot be moved."""
    return getattr(model, "hf_quantizer", None) is not None and any(
        tensor.device.type == device.type for tensor in model.parameters()
    )


def _read(source: str, dtype: torch.dtype | None) -> LoadedModel:
    """Loads the model onto the CPU."""
    if source == BUILTIN_NAME:
        return _from_folder(str(ensure_builtin()), BUILTIN_NAME, dtype)
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelUnavailable(f"There is no file {source}. {_WHAT_IS_ALLOWED}")
        return _from_gguf_file(path, dtype)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelUnavailable(
                f"The folder {source} has no config.json, so it is not a transformers model. "
                f"{_WHAT_IS_ALLOWED}"
            )
        return _from_folder(str(path), path.resolve().name, dtype)
    if source.count("/") != 1 or source.startswith((".", "/", "~")) or os.sep * 2 in source:
        raise ModelUnavailable(f"There is no model {source!r}. {_WHAT_IS_ALLOWED}")
    return _from_folder(source, source, dtype)


def find_config(source: str) -> tuple[PretrainedConfig, str]:
    """The config of a model, whose weights need not be on this machine; nothing is fetched.

    Args:
        source: a model's short name or id in the catalogue, a config.json file, or anything that
            `load_model` takes, if it is on this machine.

    Returns:
        The config, and the model's name.

    Raises:
        ModelUnavailable: there is no such config on this machine.
        UnsupportedModel: transformers cannot read the config.
    """
    for entry in catalogue().values():
        if source in (entry.name, entry.id):
            return AutoConfig.for_model(**entry.config), entry.name
    path = Path(source).expanduser()
    known = (
        f"Give a short name ({', '.join(catalogue())}), a config.json, or a model on this machine."
    )
    try:
        if path.suffix == ".gguf" and path.is_file():
            with gguf_errors_as_sentences(path):
                return AutoConfig.from_pretrained(str(path.parent), gguf_file=path.name), path.stem
        if path.name.endswith(".json") and path.is_file():
            _check_config_file(path)
            return _read_config(str(path)), path.resolve().parent.name
        config = _read_config(source, local_files_only=True)
    except (OSError, HFValidationError) as error:
        raise ModelUnavailable(f"There is no config for {source!r} here. {known}") from error
    except (ValueError, KeyError, ImportError) as error:
        raise UnsupportedModel(
            f"mom-chat cannot read the config of {source}: {first_line(error)} {known}"
        ) from error
    return config, path.resolve().name if path.is_dir() else source


def _check_config_file(path: Path) -> None:
    try:
        settings = json.loads(path.read_text())
    except ValueError as error:
        raise UnsupportedModel(
            f"The file {path} is not valid JSON: {error}. Is it complete?"
        ) from error
    if not isinstance(settings, dict):
        raise UnsupportedModel(
            f"The file {path} does not contain a model's settings. Give the config.json next to a "
            "model's weights."
        )


def _read_config(where: str, **options: bool) -> PretrainedConfig:
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(where, **options)
    except ZeroDivisionError as error:
        # transformers divides widths by the number of heads.
        raise UnsupportedModel(
            f"The config of {where} has a 0 where there must be none, for example in "
            "num_attention_heads. Is the file complete?"
        ) from error
    return config


_WHAT_IS_ALLOWED = (
    f'Give "{BUILTIN_NAME}" (built in), an id on the model hub such as "Qwen/Qwen3-4B", '
    "a folder with config.json and safetensors, or a .gguf file."
)


def _from_gguf_file(path: Path, dtype: torch.dtype | None) -> LoadedModel:
    with gguf_errors_as_sentences(path):
        model, tokenizer = load_gguf(path)
    chosen = dtype or _fastest_dtype(model.config, torch.float32)
    return LoadedModel(model.to(chosen), tokenizer, path.stem)


def _from_folder(where: str, name: str, dtype: torch.dtype | None) -> LoadedModel:
    try:
        with quiet():
            config = _read_config(where)
            chosen = dtype or _fastest_dtype(config, getattr(config, "dtype", None))
            model = require_whole(
                AutoModelForCausalLM.from_pretrained(
                    where,
                    config=config,
                    dtype=chosen,
                    use_safetensors=True,
                    output_loading_info=True,
                )
            )
            tokenizer = AutoTokenizer.from_pretrained(where)
    except OSError as error:
        raise ModelUnavailable(
            f"The model {name} cannot be loaded: {first_line(error)} {_WHAT_IS_ALLOWED}"
        ) from error
    except (ValueError, KeyError, ImportError) as error:
        raise UnsupportedModel(
            f"The model {name} cannot be run: {first_line(error)} mom-chat runs models that "
            "AutoModelForCausalLM of transformers loads without remote code."
        ) from error
    except MomError:
        raise
    except Exception as error:
        # Readers of weights and tokenizers raise errors of other types.
        if full_memory(error) is not None:
            raise no_room(name) from error
        raise ModelUnavailable(
            f"The files of the model {name} cannot be read: {first_line(error)} {FETCH_AGAIN}"
        ) from error
    return LoadedModel(model, tokenizer, name)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _fastest_dtype(config: PretrainedConfig, checkpoint: torch.dtype | None) -> torch.dtype:
    if _device().type == "cuda":
        is_half = checkpoint in (torch.float16, torch.bfloat16)
        return checkpoint if is_half and checkpoint is not None else torch.bfloat16
    return fastest_cpu_dtype(ModelSize.of(config.get_text_config()))
