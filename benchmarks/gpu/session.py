"""The frame of every measurement: a time limit, an outcome whatever happens, a line at once."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from benchmarks import record
from benchmarks.device import Device, gpu_packages
from mom_core import OutOfMemory
from mom_core.hardware.rates import Rates

# An interrupt can get lost in code that swallows exceptions, so it comes again.
_AGAIN_SECONDS = 5.0
_TRACEBACK_CHARACTERS = 3000
# The system takes no time limit of nothing.
_SHORTEST_SECONDS = 0.01


class TimeUp(Exception):
    """A measurement took longer than it may."""


class Session:
    """One part of the program.

    Args:
        device: where it runs.
        part: its number.
        limit_seconds: all its measurements may take together.
        folder: where `gpu.jsonl` grows.
    """

    def __init__(self, device: Device, part: int, limit_seconds: float, folder: Path) -> None:
        self.device = device
        self._part = part
        self._deadline = time.monotonic() + limit_seconds
        self._folder = folder
        self._about = {**record.describe_run(gpu_packages()), **device.describe()}
        # Of the machine, once they are measured.
        self.rates: Rates | None = None
        self.outcomes: list[dict[str, Any]] = []

    @property
    def remaining_seconds(self) -> float:
        """Until the part must end."""
        return self._deadline - time.monotonic()

    def measure(
        self,
        name: str,
        run: Callable[[], dict[str, Any]],
        *,
        expected_seconds: float = 0.0,
    ) -> dict[str, Any] | None:
        """Runs one measurement and writes its line.

        Args:
            name: the measurement's.
            run: gives the result.
            expected_seconds: it is skipped when less is left.

        Returns:
            The result; None if there is none, and then the line says why.
        """
        started = time.monotonic()
        result: dict[str, Any] | None = None
        if expected_seconds > self.remaining_seconds or self.remaining_seconds <= 0:
            outcome: dict[str, Any] = {
                "outcome": "skipped",
                "why": f"it would take about {expected_seconds:.0f} s, "
                f"and {max(0.0, self.remaining_seconds):.0f} s are left",
            }
        else:
            try:
                self.device.free()
                with _time_limit(max(_SHORTEST_SECONDS, self.remaining_seconds)):
                    result = run()
                outcome = {"outcome": "measured", "result": result}
            except TimeUp:
                outcome = {"outcome": "cut off", "why": "the time of this part is up"}
            except (torch.OutOfMemoryError, OutOfMemory, MemoryError) as error:
                outcome = {"outcome": "out of memory", "why": str(error).splitlines()[0]}
            except Exception:  # noqa: BLE001 - one failure must not cost the rest of the run
                outcome = _failed()
        self._write(name, outcome, time.monotonic() - started)
        return result

    def attempt(self, name: str, steps: Callable[[], None]) -> None:
        """Runs several measurements and what is between them; a failure there is a line too.

        Args:
            name: for all of them together.
            steps: measures them.
        """
        try:
            steps()
        except Exception:  # noqa: BLE001 - one failure must not cost the rest of the run
            self._write(name, _failed(), wall_seconds=0.0)

    def _write(self, name: str, outcome: dict[str, Any], wall_seconds: float) -> None:
        line = {
            **self._about,
            "part": self._part,
            "name": name,
            **outcome,
            "wall_seconds": wall_seconds,
        }
        record.append("gpu", line, self._folder)
        self.outcomes.append(line)
        shown = outcome.get("why", _brief(outcome.get("result")))
        print(f"[{wall_seconds:6.1f} s] {name}: {outcome['outcome']}. {shown}", flush=True)


def _failed() -> dict[str, Any]:
    return {"outcome": "failed", "why": traceback.format_exc()[-_TRACEBACK_CHARACTERS:]}


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raises `TimeUp` inside when the time is over, between two steps of the interpreter."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _brief(result: dict[str, Any] | None) -> str:
    """The numbers of a result that fit a line."""
    numbers = {
        key: value
        for key, value in _flat(result or {})
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return ", ".join(f"{key} {_number(key, value)}" for key, value in numbers.items())


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _number(key: str, value: float) -> str:
    return f"{value / 2**30:.2f} GiB" if key.endswith("_bytes") else f"{value:.4g}"
