"""Progress and memory on stderr while a command runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mom_core.events import MemorySample

_STATUS_EVERY_SECONDS = 0.2
_PLAIN_STATUS_EVERY_SECONDS = 5.0


class Interrupted(Exception):
    """A signal ended the program after its work so far was saved.

    Args:
        signal_number: the signal.
        sentence: shown to the person.
    """

    def __init__(self, signal_number: int, sentence: str) -> None:
        super().__init__(sentence)
        self.signal_number = signal_number


def memory_text(sample: MemorySample) -> str:
    """Memory in use now, for the status line."""
    host = f"host {sample.host_used_bytes / 2**30:.2f} GiB"
    if sample.disk_used_bytes:
        host += f", disk {sample.disk_used_bytes / 2**30:.2f} GiB"
    if sample.device_name is None or sample.device_used_bytes is None:
        return f"memory: {host}"
    return f"memory: GPU {sample.device_used_bytes / 2**30:.2f} GiB, {host}"


def peak_text(sample: MemorySample) -> str:
    """The highest use of memory, for the summary."""
    host = f"host {sample.host_peak_bytes / 2**30:.2f} GiB"
    if sample.device_peak_bytes is None:
        return host
    return f"GPU {sample.device_peak_bytes / 2**30:.2f} GiB, {host}"


class Status:
    """Progress on stderr: a terminal rewrites one line, elsewhere a new line comes now and then."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._next_at = time.monotonic()
        self._is_open = False

    def line(self, text: str) -> None:
        """Prints a line that stays."""
        self.clear()
        click.echo(text, err=True)

    def update(self, text: Callable[[], str]) -> None:
        """Draws the progress line, but not too often; `text` is called only when it is drawn."""
        now = time.monotonic()
        if now < self._next_at:
            return
        every = _STATUS_EVERY_SECONDS if self._is_terminal else _PLAIN_STATUS_EVERY_SECONDS
        self._next_at = now + every
        if self._is_terminal:
            sys.stderr.write(f"\r\x1b[2K{text()}")
            sys.stderr.flush()
            self._is_open = True
        else:
            click.echo(text(), err=True)

    def clear(self) -> None:
        """Removes the progress line."""
        if self._is_open:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
            self._is_open = False


def write_out(text: str) -> None:
    """Writes to stdout at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
