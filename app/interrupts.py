"""SIGTERM and Ctrl-C, obeyed between two steps of a run, so that what was done can be kept.

Source: ours.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """What this process was asked by its system or its person.

    Attributes:
        signal_number: the signal that asked to end; None so far.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler of both signals."""
        if self.signal_number is not None and number == signal.SIGINT:
            # Twice is meant: at once, and nothing is kept any more.
            raise KeyboardInterrupt
        self.signal_number = number


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Inside, the two signals are noted and end nothing; only in the main thread."""
    asked = Interrupts()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, asked.note) for number in numbers]
    try:
        yield asked
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def sigterm_is_an_exception() -> Iterator[None]:
    """Inside, SIGTERM raises `SystemExit`, so that everything is closed on the way out.

    A server that handled the signal itself raises it once more when it has ended, and by default
    that would end the process before anything is kept.
    """
    if threading.current_thread() is not threading.main_thread():
        # Signals come to the main thread; whoever serves in another one ends it otherwise.
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
