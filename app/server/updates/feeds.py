"""What a tab is told beside the chat: gauges, timeline, forecast card and token map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from app.server.updates.tab_state import at_work, timeline_lines
from app.ui.views.forecast import CardState, change, forecast_view, work_view
from app.ui.views.memory import memory_view
from app.workspace.forecasts import Forecast
from app.workspace.memory_timeline import Point, TimelineNote
from app.workspace.workspace import Workspace

_MEMORY_EVERY_TICKS = 6
_IDLE_MEMORY_EVERY_TICKS = 24
_MIB = 2**20


class _Pace:
    """Lets only every so many ticks through."""

    def __init__(self) -> None:
        self._since: int | None = None

    def is_due(self, ticks: int) -> bool:
        """Whether so many ticks have passed since the last time; the first is due at once."""
        if self._since is not None and self._since + 1 < ticks:
            self._since += 1
            return False
        self._since = 0
        return True


class MemoryFeed:
    """The gauges, twice a second, less often while nothing runs."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._pace = _Pace()

    def poll(self) -> Iterator[tuple[str, Any]]:
        """`memory` with the gauges."""
        is_busy = self._workspace.is_busy
        if self._pace.is_due(_MEMORY_EVERY_TICKS if is_busy else _IDLE_MEMORY_EVERY_TICKS):
            yield "memory", memory_view(self._workspace.model.memory())


class TimelineFeed:
    """The points of the current or last run: all of them once, then those that are new."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._run_id: str | None = None
        self._next = 0
        self._pace = _Pace()
        self._marks = 0

    def poll(self) -> Iterator[tuple[str, Any]]:
        """`timeline` when there is another run, then `points`."""
        if not self._pace.is_due(_MEMORY_EVERY_TICKS):
            return
        history = self._workspace.history
        if history.run_id != self._run_id:
            self._run_id, self._next, self._marks = history.run_id, 0, 0
            yield "timeline", timeline_lines(self._workspace)
        points, marks = history.since(self._next)
        if points or len(marks) != self._marks:
            self._next = points[-1].number + 1 if points else self._next
            self._marks = len(marks)
            yield (
                "points",
                {"points": [_row(point) for point in points], "marks": [_pair(m) for m in marks]},
            )


def _row(point: Point) -> list[Any]:
    """Seconds, phase, layer, MiB by kind of device and host, of the disk: some 80 bytes."""
    device, host = ([round(size / _MIB) for size in kinds] for kinds in (point.device, point.host))
    return [
        round(point.seconds, 2),
        point.phase,
        point.layer,
        device,
        host,
        round(point.disk / _MIB),
    ]


def _pair(mark: TimelineNote) -> list[Any]:
    return [round(mark.seconds, 2), mark.text]


class ForecastFeed:
    """The forecast card of the chat that a tab shows, when it changed."""

    def __init__(self, workspace: Workspace, chat_id: str) -> None:
        self._workspace = workspace
        self._chat_id = chat_id
        self._sent: dict[str, Any] | None = None
        self._before: Forecast | None = None
        self._shown: Forecast | None = None

    def poll(self) -> Iterator[tuple[str, Any]]:
        """`forecast` with all that the card shows."""
        workspace = self._workspace
        forecast = workspace.forecaster.latest(self._chat_id)
        if workspace.runs.is_busy(self._chat_id):
            # After a run the next question costs something else without anybody's change.
            self._before = self._shown = None
        elif forecast is not None and workspace.forecaster.is_current(self._chat_id):
            # One from before the run may be there for a moment after it.
            shown = self._shown
            if (
                shown is not None
                and shown != forecast
                and shown.parts.documents
                and change(shown, forecast)
            ):
                self._before = shown
            self._shown = forecast
        view = forecast_view(
            self._state(),
            forecast,
            workspace.compared.get(self._chat_id),
            workspace.model.error,
            before=self._before,
        )
        if view != self._sent:
            self._sent = view
            yield "forecast", view

    def _state(self) -> CardState:
        workspace = self._workspace
        if workspace.model.error:
            return "failed"
        if not workspace.model.is_ready:
            return "loading"
        return "counting" if workspace.documents.is_preparing else "ready"


class WorkFeed:
    """What the run of the chat that a tab shows is doing, twice a second at most."""

    def __init__(self, workspace: Workspace, chat_id: str) -> None:
        self._workspace = workspace
        self._chat_id = chat_id
        # Not None, which a tab has to be told too: it may show the run of a stream before this one.
        self._sent: object = ()
        self._pace = _Pace()

    def poll(self) -> Iterator[tuple[str, Any]]:
        """`work` with its line; null when the run is over."""
        if not self._pace.is_due(_MEMORY_EVERY_TICKS):
            return
        view = work_view(at_work(self._workspace, self._chat_id))
        if view != self._sent:
            self._sent = view
            yield "work", view


class TokenMapFeed:
    """The token map of the chat that a tab shows, when it changed."""

    def __init__(self, workspace: Workspace, chat_id: str) -> None:
        self._workspace = workspace
        self._chat_id = chat_id
        self._sent: object = None

    def poll(self) -> Iterator[tuple[str, Any]]:
        """`map` with all strips."""
        forecast = self._workspace.forecaster.latest(self._chat_id)
        strips = () if forecast is None else forecast.strips
        if strips != self._sent:
            self._sent = strips
            yield "map", [asdict(strip) for strip in strips]
