"""Two columns on a page: where the gutter is, and the right order when lines run across it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import median
from typing import TypeAlias

# left, bottom, right, top in points; y grows upwards.
Rectangle: TypeAlias = tuple[float, float, float, float]

_BIN_POINTS = 2.0
_GUTTER_POINTS_MIN = 8.0
# A gutter may be crossed by titles and wide figures only.
_CROSSED_MAX = 0.15
_LINES_MIN = 6
# Cells of a table and page numbers of a contents page fill less of their column.
_FILLED_MIN = 0.7
_WIDTH_MIN = 0.25
_LINE_POINTS = 4.0


@dataclass(frozen=True, slots=True)
class Columns:
    """Args:
    regions: in reading order; together they hold all text.
    is_interleaved: the producer wrote line by line across the gutter, so order must be made.
    """

    regions: tuple[Rectangle, ...]
    is_interleaved: bool


def find_columns(rectangles: list[Rectangle], width: float, height: float) -> Columns | None:
    """The two columns of a page, None if it has one.

    Args:
        rectangles: where pieces of text stand, in the order in which they were written.
        width: the page's, in points.
        height: the page's, in points.
    """
    rectangles = [r for r in rectangles if r[2] > r[0] and r[3] > r[1]]
    if len(rectangles) < 2 * _LINES_MIN:
        return None
    gutter = _gutter(rectangles)
    if gutter is None:
        return None
    left = [r for r in rectangles if r[2] <= gutter]
    right = [r for r in rectangles if r[0] >= gutter]
    crossing = [r for r in rectangles if r[0] < gutter < r[2]]
    extent = max(r[2] for r in rectangles) - min(r[0] for r in rectangles)
    if not (_is_column(left, _WIDTH_MIN * extent) and _is_column(right, _WIDTH_MIN * extent)):
        return None
    regions = tuple(_regions(rectangles, crossing, gutter, width, height))
    sides = [r[0] >= gutter for r in rectangles if not r[0] < gutter < r[2]]
    changes = sum(a != b for a, b in pairwise(sides))
    # In right order the side changes once a band, there and back; headers may add a few.
    return Columns(regions, changes > 2 * (len(crossing) + 1) + 4)


def _gutter(rectangles: list[Rectangle]) -> float | None:
    """The x of the widest empty strip near the middle of the text."""
    start = min(r[0] for r in rectangles)
    end = max(r[2] for r in rectangles)
    bins = int((end - start) / _BIN_POINTS) + 1
    if bins < 20 or bins > 10_000:
        return None
    # Where heights begin and end; their running sum is what covers each bin.
    changes = [0.0] * (bins + 1)
    for left, bottom, right, top in rectangles:
        changes[int((left - start) / _BIN_POINTS)] += top - bottom
        changes[int((right - start) / _BIN_POINTS) + 1] -= top - bottom
    covered = list(accumulate(changes[:bins]))
    limit = _CROSSED_MAX * median(covered)
    best_width, best = 0, 0
    run = 0
    for number in range(int(0.35 * bins), int(0.65 * bins) + 1):
        run = run + 1 if covered[number] <= limit else 0
        if run > best_width:
            best_width, best = run, number
    if best_width * _BIN_POINTS < _GUTTER_POINTS_MIN:
        return None
    return start + (best - best_width / 2 + 0.5) * _BIN_POINTS


def _is_column(rectangles: list[Rectangle], width_min: float) -> bool:
    """Whether it has enough lines, is wide enough, and most of its lines are filled."""
    lines: dict[int, tuple[float, float]] = {}
    for left, bottom, right, _ in rectangles:
        key = round(bottom / _LINE_POINTS)
        known = lines.get(key, (left, right))
        lines[key] = (min(known[0], left), max(known[1], right))
    if len(lines) < _LINES_MIN:
        return False
    column = max(line[1] for line in lines.values()) - min(line[0] for line in lines.values())
    filled = median(line[1] - line[0] for line in lines.values())
    return column >= width_min and filled >= _FILLED_MIN * column


def _regions(
    rectangles: list[Rectangle],
    crossing: list[Rectangle],
    gutter: float,
    width: float,
    height: float,
) -> list[Rectangle]:
    """From top to bottom: what crosses the gutter, then the left and the right column below it."""
    bands: list[tuple[float, float]] = []
    for _, bottom, _, top in sorted(crossing, key=lambda r: -r[3]):
        if bands and top >= bands[-1][0]:
            bands[-1] = (min(bands[-1][0], bottom), bands[-1][1])
        else:
            bands.append((bottom, top))
    regions: list[Rectangle] = []
    ceiling = max(height, *(r[3] for r in rectangles))
    floor = min(0.0, *(r[1] for r in rectangles))
    edge = max(width, *(r[2] for r in rectangles))
    start = min(0.0, *(r[0] for r in rectangles))
    for bottom, top in [*bands, (floor, floor)]:
        between = [r for r in rectangles if top <= (r[1] + r[3]) / 2 <= ceiling]
        for side_start, side_end in ((start, gutter), (gutter, edge)):
            heights = [r[3] for r in between if side_start <= (r[0] + r[2]) / 2 < side_end]
            if heights:
                regions.append((side_start, top, side_end, max(heights)))
        if top > bottom:
            regions.append((start, bottom, edge, top))
        ceiling = bottom
    return regions
