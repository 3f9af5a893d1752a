"""The rule of twelfths: how high the water stands between two tides.

In the six parts of a tide the water moves by 1, 2, 3, 3, 2 and 1 twelfths of the range.
"""

from datetime import datetime, timedelta

from tidebell.table import Tide

TWELFTHS = (1, 2, 3, 3, 2, 1)


def height_at(before: Tide, after: Tide, time: datetime) -> float:
    """Height in metres at a time between two neighbouring tides."""
    if not before.time <= time <= after.time:
        raise ValueError(f"{time} does not lie between {before.time} and {after.time}")
    part = (time - before.time) / (after.time - before.time) * 6
    whole = min(5, int(part))
    moved = sum(TWELFTHS[:whole]) + TWELFTHS[whole] * (part - whole)
    return before.height_m + (after.height_m - before.height_m) * moved / 12


def first_time_above(before: Tide, after: Tide, height_m: float) -> datetime | None:
    """The first minute at which rising water reaches a height, None if it never does."""
    if not after.is_high or after.height_m < height_m:
        return None
    time = before.time
    while time <= after.time:
        if height_at(before, after, time) >= height_m:
            return time
        time += timedelta(minutes=1)
    return after.time
