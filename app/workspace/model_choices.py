"""The models to choose from, each with the longest context it can read on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache

from mom_core.model.builtin import BUILTIN_NAME
from mom_core.model.catalogue import CatalogueEntry, catalogue

_SECONDS = 120


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model of the catalogue.

    Args:
        source: the model's source, as for `Engine.load`.
        name: its short name.
        good_for: what it is good for, in a few words.
        is_builtin: whether it comes without the model hub.
        window_tokens: the longest context in its config.
        fits_tokens: the longest context that fits this machine; 0 if even the weights do not fit.
        weights_bytes: bytes of its weights in half precision.
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

    What fits follows from the rule that chooses settings, with everything on "auto". The first
    call takes seconds, in a separate process: building models without weights changes torch's
    default dtype for all threads, and a run may be going on.

    Raises:
        OSError: the process cannot be started, or does not answer.
    """
    command = [sys.executable, "-m", __name__]
    try:
        printed = subprocess.run(
            command, capture_output=True, check=True, timeout=_SECONDS, text=True
        ).stdout
    except subprocess.SubprocessError as fault:
        raise OSError(f"The sizes of the models could not be worked out: {fault}.") from fault
    return tuple(ModelChoice(**one) for one in json.loads(printed))


def _choices() -> tuple[ModelChoice, ...]:
    found = [_choice(entry) for entry in catalogue().values()]
    return tuple(sorted(found, key=lambda one: (not one.is_builtin, one.weights_bytes)))


def _choice(entry: CatalogueEntry) -> ModelChoice:
    import torch
    from transformers import AutoConfig

    from mom_core.forecast.capacity import Machine
    from mom_core.forecast.choose import longest_context_tokens
    from mom_core.forecast.recurrent import recurrent_bytes
    from mom_core.forecast.shape import ModelShape

    config = AutoConfig.for_model(**entry.config)
    shape = ModelShape.of_config(config, entry.name, torch.bfloat16)
    recurrent = recurrent_bytes(config, torch.bfloat16)
    # All of the machine: the model that is loaded now would make room.
    longest = longest_context_tokens(shape, recurrent, Machine.here(is_empty=True))
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


if __name__ == "__main__":
    print(json.dumps([asdict(choice) for choice in _choices()]))
