"""Page ranges as people write them: "1-40, 88"."""

from __future__ import annotations

import re

_RANGE = re.compile(r"(\d{1,9})(?:\s*[-\u2013]\s*(\d{1,9}))?")
_SHOWN_CHARACTERS = 80


def page_numbers(pages: str | None, total: int) -> list[int] | str:
    """Physical page indices for some ranges.

    Args:
        pages: counted from 1, such as "1-20,25"; None means all.
        total: how many there are.

    Returns:
        Indices from 0, ascending; or the sentence of a refusal with places for `{name}` and
        `{total}`, as only its reader knows what the thing is called.
    """
    if pages is None:
        return list(range(total))
    chosen: dict[int, None] = {}
    for part in pages.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            shown = pages[:_SHOWN_CHARACTERS].replace("{", "(").replace("}", ")")
            return f'pages "{shown}" cannot be read; write numbers and ranges such as "1-20,25".'
        first = int(match[1])
        last = int(match[2] or first)
        if not 1 <= first <= last <= total:
            return (
                f'pages "{part.strip()}" were asked for, but {{name}} has {{total}}; '
                f"give numbers from 1 to {total:,}."
            )
        chosen.update(dict.fromkeys(range(first - 1, last)))
    return sorted(chosen)
