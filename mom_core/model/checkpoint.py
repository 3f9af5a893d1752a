"""What loading a checkpoint needs whatever its form: whole or refused, without noise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from transformers import logging as transformers_logging

from mom_core.errors import ModelUnavailable

if TYPE_CHECKING:
    from transformers import PreTrainedModel
from typing import TYPE_CHECKING

from mom_core.errors import OutOfMemory

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def require_whole(loaded: tuple[PreTrainedModel, Mapping[str, Any]]) -> PreTrainedModel:
    """A model none of whose weights is missing: transformers makes such up at random.

    Args:
        loaded: by `from_pretrained` with `output_loading_info`.

    Raises:
        ModelUnavailable: some are.
    """
    model, information = loaded
    if missing := sorted(information["missing_keys"]):
        raise ModelUnavailable(
            f"The model's files lack {len(missing)} of its weights, such as {missing[0]}. "
            f"{FETCH_AGAIN}"
        )
    return model


FETCH_AGAIN = (
    "If its download was cut short, or the file is damaged, fetch it again and compare the size "
    "with that of its source."
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of transformers: progress is the app's to show."""
    was_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            transformers_logging.enable_progress_bar()


def no_room(name: str) -> OutOfMemory:
    """The sentence for weights that host memory cannot hold."""
    return OutOfMemory(
        f"This machine's memory is full: the weights of {name} do not fit. Close other programs, "
        "or choose a smaller model."
    )


def first_line(error: BaseException) -> str:
    """An error's first line, with a full stop; its type if it says nothing."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".") + "."


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Nothing is said about a model that is only measured and not run."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
