"""What the next question will cost, kept up to date beside the page; and whether it came true.

Building a prompt of 400,000 tokens and comparing it with what was read takes a moment, so it is
done in a thread of its own, once nothing has changed for a moment and no run is on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.workspace.token_map import Strip
from mom_core.config import TierName
from mom_core.errors import MomError
from mom_core.events import Finished
from mom_core.forecast.forecast import RunForecast

_LOG = logging.getLogger(__name__)
_DEBOUNCE_SECONDS = 0.12
_KEPT = 32


@dataclass(frozen=True, slots=True)
class PromptParts:
    """Tokens of the prompt that would be sent.

    Args:
        documents: chosen documents.
        conversation: turns before, and the template's words.
        answer_room: kept for the answer.
        window: of the model.
        reused: at the beginning, how many were read before.
        fitted: at most sent, where only the parts that match best are; None where all is sent.
    """

    documents: int
    conversation: int
    answer_room: int
    window: int
    reused: int
    fitted: int | None = None

    @property
    def prompt(self) -> int:
        """All that is chosen."""
        return self.documents + self.conversation

    @property
    def sent(self) -> int:
        """S, or the most that it can be."""
        return self.prompt if self.fitted is None else self.fitted


@dataclass(frozen=True, slots=True)
class Forecast:
    """The next question of a chat, before it is sent.

    Args:
        parts: of its prompt.
        outlook: what it will take.
        strips: what of the documents was read.
        longest_tokens: prompt that machine and model can take; 0 if that was not asked.
        model_name: of the model that would read it.
    """

    parts: PromptParts
    run_forecast: RunForecast
    strips: tuple[Strip, ...] = ()
    longest_tokens: int = 0
    model_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A forecast and what came of it.

    Args:
        read_seconds: forecast and real; the forecast is None where rates were not known.
        token_seconds: the same for a token of the answer.
        peak_bytes: of weights, KV and activations where the model computes; the same.
        read_tokens: that were not known already.
    """

    read_seconds: tuple[float | None, float]
    token_seconds: tuple[float | None, float | None]
    peak_bytes: tuple[int, int]
    read_tokens: int


def compare(foreseen: RunForecast, finished: Finished, peak_bytes: int) -> Compared:
    """What was expected of a run beside what it took.

    Args:
        foreseen: when it began.
        finished: how it ended, without the pauses.
        peak_bytes: of weights, KV and activations, where the model computes.
    """
    tier: TierName = "host" if foreseen.device_peak_bytes is None else "device"
    # The first token comes with the reading.
    tokens = finished.new_tokens - 1
    decode_seconds = finished.decode_seconds
    return Compared(
        read_seconds=(foreseen.read_seconds, finished.prefill_seconds),
        token_seconds=(foreseen.token_seconds, decode_seconds / tokens if tokens > 0 else None),
        peak_bytes=(sum(foreseen.by_kind[tier].values()), peak_bytes),
        read_tokens=finished.prompt_tokens - finished.reused_tokens,
    )


class Forecaster:
    """Forecasts of the chats that somebody looks at.

    Args:
        make: the forecast of a chat's next question; None while there is no model to ask. Called
            in the thread; takes its time.
        version: changes whenever a forecast may have.
        is_idle: whether no run is on; forecasts wait for that.
    """

    def __init__(
        self,
        make: Callable[[str], Forecast | None],
        version: Callable[[], object],
        is_idle: Callable[[], bool],
    ) -> None:
        self._make = make
        self._version = version
        self._is_idle = is_idle
        self._made: dict[str, tuple[object, Forecast | None]] = {}
        self._wanted: set[str] = set()
        self._wake = threading.Event()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="mom-forecast", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(2.0)

    def latest(self, chat_id: str) -> Forecast | None:
        """The newest forecast of a chat; if it is out of date, another one is made meanwhile."""
        version, forecast = self._made.get(chat_id, (None, None))
        if version != self._version() and self._is_idle():
            self._wanted.add(chat_id)
            self._wake.set()
        return forecast

    def is_current(self, chat_id: str) -> bool:
        """Whether the newest forecast is of things as they are now."""
        return self._made.get(chat_id, (None, None))[0] == self._version()

    def _work(self) -> None:
        while not self._is_closing:
            self._wake.wait()
            self._wake.clear()
            time.sleep(_DEBOUNCE_SECONDS)
            while self._wanted and not self._is_closing:
                chat_id = self._wanted.pop()
                version = self._version()
                try:
                    forecast = self._make(chat_id)
                except MomError:
                    forecast = None
                except Exception:  # noqa: BLE001 - a forecast must not end the others
                    _LOG.exception("A forecast failed")
                    forecast = None
                self._made.pop(chat_id, None)
                self._made[chat_id] = (version, forecast)
                # Of chats that nobody looks at any more none is wanted.
                for old in list(self._made)[:-_KEPT]:
                    del self._made[old]
