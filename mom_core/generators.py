"""Generators that report progress and return a result."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def draw(
    generator: Generator[_Item, None, _Result], on_item: Callable[[_Item], object] | None = None
) -> _Result:
    """Draws a generator to its end.

    Args:
        generator: drawn from where it is.
        on_item: called with everything it yields.

    Returns:
        What the generator returns.
    """
    while True:
        try:
            item = next(generator)
        except StopIteration as end:
            result: _Result = end.value
            return result
        if on_item is not None:
            on_item(item)
