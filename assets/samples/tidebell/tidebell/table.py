"""Reading a table of tides."""

import csv
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path


class TableError(ValueError):
    """The table cannot be used; the message names the line."""


@dataclass(frozen=True)
class Tide:
    """One high or low water: when, which, and its height in metres above chart datum."""

    time: datetime
    is_high: bool
    height_m: float


def read_table(path: Path) -> list[Tide]:
    """All tides of a file, in order. Two tides of the same kind in a row are an error."""
    tides: list[Tide] = []
    with path.open(newline="") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if not row or row[0].startswith("#"):
                continue
            try:
                time, kind, height = row
                tide = Tide(datetime.fromisoformat(time), kind.strip() == "high", float(height))
            except ValueError as fault:
                raise TableError(f"line {number}: {fault}") from fault
            if tides and tides[-1].is_high == tide.is_high:
                raise TableError(f"line {number}: two {kind.strip()} waters in a row")
            tides.append(tide)
    if len(tides) < 2:
        raise TableError("the table needs at least two tides")
    return tides
