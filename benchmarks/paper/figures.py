"""The two pictures of the comparison, as SVG: memory over time, and the longest contexts.

Written by hand, without a plotting library: they are rectangles and words. Colours of words and
lines follow the reader's light or dark page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

GIB = 2**30
# From the bottom up, with what is shown beside the colour.
KINDS = {
    "weights": ("#7f8c9b", "weights"),
    "KV": ("#d9822b", "keys and values"),
    "hidden": ("#3f8f6b", "hidden states"),
    "activations": ("#3b76c4", "activations"),
    "logits": ("#a6539c", "logits"),
}
_READING_SHARE = 0.72
_STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; font-size: 13px; }
.faint { fill: #59636e; }
rect { shape-rendering: crispEdges; }
.line { stroke: #9aa4af; stroke-width: 1; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .faint { fill: #9198a1; }
  .line { stroke: #59636e; }
}
</style>"""


def _svg(width: int, height: int, label: str, body: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="{escape(label)}">'
    )
    return "\n".join([head, _STYLE, *body, "</svg>"]) + "\n"


def _text(x: float, y: float, words: str, *, css: str = "", anchor: str = "start") -> str:
    style = f' class="{css}"' if css else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(words)}</text>'


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'
    )


def memory_timeline(timelines: dict[str, list[dict[str, Any]]], model: str, tokens: int) -> str:
    """Device memory by kind, step by step, one panel a strategy, all on one scale.

    Args:
        timelines: steps of each strategy: phase, layer and bytes by kind.
        model: its name.
        tokens: length of the prompt.
    """
    panel_width, gap, left, top, height = 250, 24, 44, 56, 220
    highest = max(sum(step["device"].values()) for steps in timelines.values() for step in steps)
    width = left + len(timelines) * (panel_width + gap)
    scale = height / highest
    body = [
        _text(left, 20, f"Device memory, {model}, {tokens:,} tokens (simulated)", css="title"),
    ]
    for gib in _ticks(highest / GIB):
        y = top + height - gib * GIB * scale
        body.append(
            f'<line class="line" x1="{left}" x2="{width - gap}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        body.append(_text(left - 6, y + 4, f"{gib:g}", css="faint", anchor="end"))
    body.append(_text(left - 6, top - 10, "GiB", css="faint", anchor="end"))
    for i, (name, steps) in enumerate(timelines.items()):
        x = left + i * (panel_width + gap)
        peak = max(sum(step["device"].values()) for step in steps)
        body.append(_text(x, top - 10, f"{name}: {peak / GIB:.1f} GiB at most"))
        for place, step_width, step in _places(steps, x, panel_width):
            upper = float(top + height)
            for kind, (colour, _) in KINDS.items():
                n_bytes = step["device"].get(kind, 0)
                if n_bytes * scale >= 0.05:
                    upper -= n_bytes * scale
                    body.append(_box(place, upper, step_width, n_bytes * scale, colour))
        below = top + height + 16
        body.append(_text(x, below, "reading, layer by layer", css="faint"))
        body.append(_text(x + panel_width, below, "answering", css="faint", anchor="end"))
        border = x + _READING_SHARE * panel_width
        body.append(
            f'<line class="line" x1="{border:.1f}" x2="{border:.1f}" y1="{top}" '
            f'y2="{top + height + 6}"/>'
        )
    body += _legend(left, top + height + 40, list(KINDS.values()))
    label = f"Device memory over time for {', '.join(timelines)}"
    return _svg(width, top + height + 56, label, body)


def _places(
    steps: Sequence[dict[str, Any]], x: float, width: float
) -> Iterator[tuple[float, float, dict[str, Any]]]:
    """Where each step stands and how wide it is: reading has most of the panel, however long."""
    reading = [step for step in steps if step["phase"] != "decode"]
    answering = [step for step in steps if step["phase"] == "decode"]
    border = x + _READING_SHARE * width
    for part, start, room in (
        (reading, x, border - x),
        (answering, border, x + width - border),
    ):
        for at, step in enumerate(part):
            yield start + at * room / len(part), room / len(part), step


def _ticks(highest: float) -> Iterator[float]:
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100) if highest / step <= 6)
    yield from (step * i for i in range(int(highest / step) + 1))


def _legend(x: float, y: float, entries: Sequence[tuple[str, str]]) -> Iterator[str]:
    for colour, words in entries:
        yield _box(x, y - 10, 12, 12, colour)
        yield _text(x + 17, y, words)
        x += 34 + 7 * len(words)


def longest_contexts(models: dict[str, Any], strategies: Sequence[str]) -> str:
    """Bars of the longest context by model, card and strategy.

    Args:
        models: rows of each model by strategy, with `longest_context_tokens` by card.
        strategies: the bars of each group, from the top down.
    """
    colours = ["#7f8c9b", "#3f8f6b", "#3b76c4", "#d9822b"]
    cards = list(next(iter(models.values()))[strategies[0]]["longest_context_tokens"])
    left, bar, gap, panel_width = 120, 13, 22, 300
    longest = {
        card: max(
            rows[s]["longest_context_tokens"][card] for rows in models.values() for s in strategies
        )
        for card in cards
    }
    top = 64
    width = left + len(cards) * (panel_width + 90)
    group = len(strategies) * bar + gap
    body = [_text(8, 20, "Longest context that fits, tokens (forecast, bf16)", css="title")]
    for column, card in enumerate(cards):
        x = left + column * (panel_width + 90)
        body.append(_text(x, top - 14, f"card of {card}"))
        for row, (model, rows) in enumerate(models.items()):
            y = top + row * group
            if column == 0:
                body.append(_text(8, y + len(strategies) * bar / 2 + 4, model))
            for i, name in enumerate(strategies):
                tokens = rows[name]["longest_context_tokens"][card]
                length = panel_width * tokens / max(1, longest[card])
                body.append(_box(x, y + i * bar, max(length, 0.5), bar - 2, colours[i]))
                body.append(_text(x + length + 5, y + i * bar + 10, f"{tokens:,}", css="faint"))
    bottom = top + len(models) * group + 8
    body += _legend(8, bottom, list(zip(colours, strategies, strict=False)))
    return _svg(width, bottom + 16, "Longest context that fits, by model and strategy", body)
