"""Who may open the page, from the command line's options.

A password is never the value of an option: anyone who lists processes can see those.
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
    """Where the page can be reached from, and by whom; asks for a password if one is needed.

    Args:
        host: address or name to listen on.
        password_file: file whose first line is the password; None for no file.
        uses_token: require the token that is printed with the address.

    Raises:
        InvalidSetting: other machines could get in without a password, or the password is too
            short or cannot be read.
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
    # Programs that this one starts must not inherit it.
    return os.environ.pop(_VARIABLE, None)
