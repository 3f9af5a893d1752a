"""The `mom` program: its commands, and the one place where an error becomes a sentence.

`mom` serves the page; `mom ask`, `mom read`, `mom plan` and `mom library` work in the terminal.
Heavy imports wait inside the commands, so that `mom --help` is instant and `mom ask` never
imports the page.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

import click

from app.cli.ask import ask
from app.cli.chat import chat
from app.cli.library import library
from app.cli.plan import plan
from app.cli.read import read
from app.cli.status import Interrupted
from mom_core.errors import MomError


class _Group(click.Group):
    """`mom` without a command is `mom chat`, with its options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("--help", "--version")):
            args = ["chat", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Group, context_settings={"help_option_names": ["--help"]})
@click.version_option(package_name="mom-chat", prog_name="mom")
def cli() -> None:
    """Chat with a model that reads your whole document.

    Without a command, `mom` serves the page.
    """


for command in (chat, ask, read, plan, library):
    cli.add_command(command)


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    """Errors that a person can cause end the program with one sentence."""
    try:
        yield
    except MomError as fault:
        click.echo(f"mom: {fault}", err=True)
        sys.exit(2)
    except Interrupted as ended:
        click.echo(f"\n{ended}", err=True)
        sys.exit(128 + ended.signal_number)
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nStopped.", err=True)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        # The reader of stdout is gone (`mom ask … | head`), so nobody needs what is buffered.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def main() -> None:
    """Entry point of the `mom` program."""
    with _sentences():
        try:
            cli.main(standalone_mode=False)
        except click.ClickException as fault:
            # One sentence instead of click's page of usage.
            click.echo(f"mom: {fault.format_message()}", err=True)
            sys.exit(2)


if __name__ == "__main__":
    main()
