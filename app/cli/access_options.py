"""Who may open the page, from what a person says on the command line.

A password is never an option's value: those are shown to everyone who lists processes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from app.server.access import Access, is_loopback
from app.server.admission import new_token
from mom_core.errors import InvalidSetting

_VARIABLE = "MOM_PASSWORD"


def access_from(host: str, password_file: Path | None, *, uses_token: bool) -> Access:
    """From where the page can be reached, and by whom; asks for a password if one is needed.

    Args:
        host: address or name to listen at.
        password_file: its first line is the password; None: there is no such file.
        uses_token: demand a token that is printed with the address.

    Raises:
        InvalidSetting: other machines could get in without a password, or it cannot be used.
    """
    password = _password(password_file)
    if password is None and not is_loopback(host) and sys.stdin.isatty():
        password = click.prompt(
            f"Password for the page at {host}", hide_input=True, confirmation_prompt=True, err=True
        )
    return Access(host=host, token=new_token() if uses_token else None, password=password)


def _password(file: Path | None) -> str | None:
    if file is not None:
        try:
            first, *_ = file.read_text("utf-8").splitlines() or [""]
        except (OSError, UnicodeDecodeError) as fault:
            raise InvalidSetting(
                f"The password file {file} cannot be read: {fault}. Give a text file."
            ) from fault
        return first
    # Whatever this program starts has no use for it.
    return os.environ.pop(_VARIABLE, None)
