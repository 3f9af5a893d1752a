"""The models a person may choose from, each with what it can read on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING

from mom_core.model.builtin import BUILTIN_NAME
from mom_core.model.catalogue import CatalogueEntry, catalogue

if TYPE_CHECKING:
    from mom_core.forecast.capacity import Machine

_SECONDS = 120


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model of the catalogue.

    Args:
        source: as for `Engine.load`.
        name: short.
        good_for: a few words.
        is_builtin: whether it needs no model hub.
        window_tokens: the longest context its config gives.
        fits_tokens: how much of that fits this machine; 0 if not even the weights do.
        weights_bytes: in half precision.
    """

    source: str
    name: str
    good_for: str
    is_builtin: bool
    window_tokens: int
    fits_tokens: int
    weights_bytes: int


@cache
def model_choices() -> tuple[ModelChoice, ...]:
    """The built-in model first, then the rest of the catalogue from small to large.

    What fits is asked of the rule that chooses settings, so it is that of a reading with all on
    "auto". The first call takes seconds, in a process of its own: making models without weights
    changes torch's default dtype for all threads, and a run may be on.

    Raises:
        OSError: no process can be started, or it does not answer.
    """
    command = [sys.executable, "-m", __name__]
    try:
        printed = subprocess.run(
            command, capture_output=True, check=True, timeout=_SECONDS, text=True
        ).stdout
    except subprocess.SubprocessError as fault:
        raise OSError(f"The catalogue could not be weighed: {fault}.") from fault
    return tuple(ModelChoice(**one) for one in json.loads(printed))


def _choices() -> tuple[ModelChoice, ...]:
    found = [_choice(entry) for entry in catalogue().values()]
    return tuple(sorted(found, key=lambda one: (not one.is_builtin, one.weights_bytes)))


def _choice(entry: CatalogueEntry) -> ModelChoice:
    import torch
    from transformers import AutoConfig

    from mom_core.forecast.choose import longest_context_tokens
    from mom_core.forecast.recurrent import recurrent_bytes
    from mom_core.forecast.shape import ModelShape

    config = AutoConfig.for_model(**entry.config)
    shape = ModelShape.of_config(config, entry.name, torch.bfloat16)
    recurrent = recurrent_bytes(config, torch.bfloat16)
    longest = longest_context_tokens(shape, recurrent, _machine())
    is_builtin = entry.name == BUILTIN_NAME
    return ModelChoice(
        BUILTIN_NAME if is_builtin else entry.id,
        entry.name,
        entry.good_for,
        is_builtin,
        entry.window_tokens,
        min(longest, entry.window_tokens),
        shape.weights_bytes,
    )


def _machine() -> Machine:
    """All that the machine has: the model that is there now would make room."""
    import torch

    from mom_core.forecast.capacity import Machine
    from mom_core.hardware.host import free_disk_bytes, host_total_bytes
    from mom_core.kv.scratch import default_scratch_folder

    has_gpu = torch.cuda.is_available()
    return Machine(
        device_bytes=int(torch.cuda.mem_get_info()[1]) if has_gpu else None,
        host_bytes=host_total_bytes(),
        disk_bytes=free_disk_bytes(default_scratch_folder()),
    )


if __name__ == "__main__":
    print(json.dumps([asdict(choice) for choice in _choices()]))
