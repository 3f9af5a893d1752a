"""What loading a checkpoint needs in any format: complete weights, and no output by libraries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from transformers import logging as transformers_logging

from mom_core.errors import ModelUnavailable, OutOfMemory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FETCH_AGAIN = (
    "If its download was cut short, or the file is damaged, fetch it again and compare its size "
    "with that at its source."
)


def require_whole(loaded: tuple[PreTrainedModel, Mapping[str, Any]]) -> PreTrainedModel:
    """The loaded model, if its files had all weights; transformers fills missing ones at random.

    Args:
        loaded: the result of `from_pretrained` with `output_loading_info`.

    Raises:
        ModelUnavailable: weights are missing.
    """
    model, information = loaded
    if missing := sorted(information["missing_keys"]):
        raise ModelUnavailable(
            f"The model's files lack {len(missing)} of its weights, such as {missing[0]}. "
            f"{FETCH_AGAIN}"
        )
    return model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, transformers shows no progress bars; showing progress is up to the app."""
    was_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            transformers_logging.enable_progress_bar()


def no_room(name: str) -> OutOfMemory:
    """The error for weights that do not fit in host memory.

    Args:
        name: the model's name.
    """
    return OutOfMemory(
        f"This machine's memory is full: the weights of {name} do not fit. Close other programs, "
        "or choose a smaller model."
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, with a full stop; its type if it has no message."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".") + "."


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Inside, transformers prints no warnings, for a model that is measured but not run."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
