"""Loading a model: by name, hub id, folder or GGUF file, in the dtype that is fastest here.

Only safetensors and GGUF are read, and no code that comes with a model is run.
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
        model: on its device, in its dtype.
        tokenizer: the model's.
        name: shown to people.
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
        dtype: for the weights; None chooses: on a GPU the checkpoint's own (bf16 for fp32 ones),
            on the CPU the faster of bf16 and fp32 by a short probe.
        leaves_layers: whether the layers stay on the host, where they are read first in any
            case: the engine that is made of the model decides where they belong.

    Raises:
        ModelUnavailable: the files cannot be found, fetched or read.
        UnsupportedModel: they are of a model this engine cannot run.
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
    """Whether transformers has put quantised weights on the device; some cannot be moved again."""
    return getattr(model, "hf_quantizer", None) is not None and any(
        tensor.device.type == device.type for tensor in model.parameters()
    )


def _read(source: str, dtype: torch.dtype | None) -> LoadedModel:
    """The model on the CPU."""
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
    """The config of a model whose weights need not be here; nothing is fetched.

    Args:
        source: a short name of the catalogue or its id, a config.json, or what `load_model` takes
            if it is on this machine.

    Returns:
        The config, and the model's name.

    Raises:
        ModelUnavailable: there is no such config here.
        UnsupportedModel: transformers cannot read it.
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
        raise ModelUnavailable(f"There is no config of a model {source!r} here. {known}") from error
    except (ValueError, KeyError, ImportError) as error:
        raise UnsupportedModel(
            f"The config of {source} is not one this program can read: {first_line(error)} {known}"
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
            f"The file {path} does not hold the settings of a model; give the config.json that "
            "lies beside a model's weights."
        )


def _read_config(where: str, **options: bool) -> PretrainedConfig:
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(where, **options)
    except ZeroDivisionError as error:
        # Widths are divided by the number of heads.
        raise UnsupportedModel(
            f"The config of {where} has a number that may not be 0, such as num_attention_heads. "
            "Is the file complete?"
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
            f"The model {name} is not one this program can run: {first_line(error)} "
            "Models that AutoModelForCausalLM of transformers loads without remote code can be "
            "used."
        ) from error
    except MomError:
        raise
    except Exception as error:
        # Readers of weights and tokenizers have errors of their own.
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
