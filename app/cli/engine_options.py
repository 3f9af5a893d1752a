"""Options that set up the engine, the same for every command that runs a model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Literal, TypeVar, cast, get_args

import click

from app.cli.common_options import scratch_folder_option
from mom_core.config import DecodeMode, EngineConfig, Extension, KVTier, Weights
from mom_core.sizes import parse_size

TIERS = click.Choice(get_args(KVTier))
_ENGINE_SETTINGS = [field.name for field in fields(EngineConfig)]
_Command = TypeVar("_Command", bound=Callable[..., Any])


def chunk_tokens_option(
    ctx: click.Context, param: click.Parameter, value: str
) -> int | Literal["auto"]:
    """Parses `--chunk-tokens`: a whole number, or "auto"."""
    if value == "auto":
        return "auto"
    try:
        return int(value)
    except ValueError:
        raise click.BadParameter(
            f'{value!r} is neither a whole number of at least 1 nor "auto".', ctx, param
        ) from None


def size_option(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Parses a size such as 24GiB to bytes."""
    return None if value is None else parse_size(value)


def engine_options(command: _Command) -> _Command:
    """Adds the options about memory and context.

    The command gets them as `config`, together with its own options that are engine settings.
    """
    for option in (
        click.option(
            "--extend",
            type=click.Choice(get_args(Extension)),
            default="off",
            show_default=True,
            help="Stretch the model's context beyond its limit. This changes answers.",
        ),
        click.option(
            "--context-tokens",
            type=click.IntRange(min=1),
            help="Longest context. Beyond the model's own limit, it needs --extend.",
        ),
        scratch_folder_option,
        click.option(
            "--device-memory",
            metavar="SIZE",
            callback=size_option,
            help="Most GPU memory to use, such as 24GiB. Default: what is free.",
        ),
        click.option(
            "--host-memory",
            metavar="SIZE",
            callback=size_option,
            help="Most memory of this machine to use. What does not fit goes to disk.",
        ),
        click.option(
            "--decode",
            type=click.Choice(get_args(DecodeMode)),
            default="auto",
            show_default=True,
            help="Where answering attends to keys and values that are not on the GPU.",
        ),
        click.option(
            "--weights",
            type=click.Choice(get_args(Weights)),
            default="auto",
            show_default=True,
            help="Keep all weights on the device, or stream them layer by layer.",
        ),
    ):
        command = option(command)

    @functools.wraps(command)
    def run(**arguments: Any) -> Any:
        chosen = {name: arguments.pop(name) for name in _ENGINE_SETTINGS if name in arguments}
        return command(config=EngineConfig(**chosen), **arguments)

    # click stores a command's options on the function; `wraps` has copied them.
    return cast("_Command", run)
