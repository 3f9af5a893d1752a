"""Options that set up the engine, the same for every command that runs a model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

import click

from mom_core.config import (
    DecodeMode,
    EngineConfig,
    Extension,
    KVTier,
    Weights,
)
from mom_core.sizes import parse_size

DEFAULT_MODEL = "smollm2-135m"
_Command = TypeVar("_Command", bound=Callable[..., Any])


def chunk_tokens_option(
    ctx: click.Context, param: click.Parameter, value: str
) -> int | Literal["auto"]:
    """`--chunk-tokens`: a whole number, or "auto"."""
    if value == "auto":
        return "auto"
    try:
        return int(value)
    except ValueError:
        raise click.BadParameter(
            f'{value!r} is neither a whole number of at least 1 nor "auto".', ctx, param
        ) from None


def size_option(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A size such as 24GiB, in bytes."""
    return None if value is None else parse_size(value)


TIERS = click.Choice(get_args(KVTier))
_ENGINE_SETTINGS = [field.name for field in fields(EngineConfig)]


def engine_options(command: _Command) -> _Command:
    """What a person may say about memory and context, alike for every command that runs a model.

    The command gets it as `config`, with what its own options say of the engine's settings.
    """
    for option in (
        click.option(
            "--extend",
            type=click.Choice(get_args(Extension)),
            default="off",
            show_default=True,
            help="How the model reads more than it was made for; answers change.",
        ),
        click.option(
            "--context-tokens",
            type=click.IntRange(min=1),
            help="The longest context. More than the model was made for needs --extend.",
        ),
        click.option(
            "--scratch-folder",
            type=click.Path(file_okay=False, path_type=Path),
            help="Where the files of the tier disk lie. Default: in your cache folder.",
        ),
        click.option(
            "--device-memory",
            metavar="SIZE",
            callback=size_option,
            help="Of the GPU, at most; such as 24GiB. Default: what is free.",
        ),
        click.option(
            "--host-memory",
            metavar="SIZE",
            callback=size_option,
            help="Of this machine, at most; what does not fit goes to the disk.",
        ),
        click.option(
            "--decode",
            type=click.Choice(get_args(DecodeMode)),
            default="auto",
            show_default=True,
            help="Where keys and values that left the GPU are attended to while answering.",
        ),
        click.option(
            "--weights",
            type=click.Choice(get_args(Weights)),
            default="auto",
            show_default=True,
            help="On the device, or brought there layer by layer.",
        ),
    ):
        command = option(command)

    @functools.wraps(command)
    def run(**arguments: Any) -> Any:
        chosen = {name: arguments.pop(name) for name in _ENGINE_SETTINGS if name in arguments}
        return command(config=EngineConfig(**chosen), **arguments)

    # click keeps a command's options on the function; `wraps` has copied them.
    return cast("_Command", run)
