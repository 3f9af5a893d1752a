"""An answer without a model, as fast as one asks for: what the page costs, and nothing else.

The words are made up, in the shapes of real answers: paragraphs, lists, tables and code.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any
from unittest.mock import patch

from app.workspace.workspace import Workspace
from mom_core.events import Event, Finished, PrefillProgress, Token

_LAYERS = 32
_PROGRESS_PER_LAYER = 8
_PARAGRAPH_TOKENS = 90


def token_text(index: int) -> str:
    """Text of one token of the answer; its number is in it.

    Args:
        index: 0 for the first.
    """
    block, place = divmod(index, _PARAGRAPH_TOKENS)
    if place == 0:
        return ("" if index == 0 else "\n\n") + f"w{index}"
    kind = block % 4
    if kind == 1 and place % 15 == 0:
        return f"\n- w{index}"
    if kind == 2 and place == 1:
        return f"\n\n```python\nw{index}"
    if kind == 2 and place == _PARAGRAPH_TOKENS - 1:
        return f" w{index}\n```"
    if kind == 2 and place % 10 == 0:
        return f"\nw{index}"
    return f" w{index}" if place % 7 else f" **w{index}**"


class PacedAnswer:
    """What stands in for `Engine.generate`.

    Args:
        tokens: length of the answer.
        wait: called before each token with its index; returns when it may come.
        reading_seconds: how long the prompt is being read before.
    """

    def __init__(
        self, tokens: int, wait: Callable[[int], None], reading_seconds: float = 0.0
    ) -> None:
        self._tokens = tokens
        self._wait = wait
        self._reading_seconds = reading_seconds

    def __call__(self, prompt_ids: Any, **_: Any) -> Generator[Event, None, None]:
        """The events of a run, as `Engine.generate` makes them."""
        prompt_tokens = len(prompt_ids)
        began = time.monotonic()
        yield from self._read(prompt_tokens)
        read_at = time.monotonic()
        for index in range(self._tokens):
            self._wait(index)
            yield Token(token_id=100 + index % 1000, text=token_text(index), index=index)
        yield Finished(
            reason="stop",
            prompt_tokens=prompt_tokens,
            reused_tokens=0,
            new_tokens=self._tokens,
            decode_steps=max(1, self._tokens - 1),
            prefill_seconds=read_at - began,
            decode_seconds=time.monotonic() - read_at,
        )

    def _read(self, prompt_tokens: int) -> Iterator[PrefillProgress]:
        steps = _LAYERS * _PROGRESS_PER_LAYER if self._reading_seconds else 0
        for step in range(steps):
            fraction = step / steps
            yield PrefillProgress(
                prompt_tokens=prompt_tokens,
                reused_tokens=0,
                layer=step // _PROGRESS_PER_LAYER,
                layers=_LAYERS,
                token_layers_done=round(fraction * prompt_tokens * _LAYERS),
                token_layers_total=prompt_tokens * _LAYERS,
                fraction=fraction,
                elapsed_seconds=fraction * self._reading_seconds,
                eta_seconds=(1 - fraction) * self._reading_seconds,
            )
            time.sleep(self._reading_seconds / steps)


@contextlib.contextmanager
def answering(workspace: Workspace, answer: PacedAnswer) -> Iterator[None]:
    """Runs of the workspace are this answer; nobody learns a machine's speed from them."""
    with (
        patch.object(workspace.model.engine, "generate", answer),
        patch("mom_core.engine.Engine.learn", lambda engine, finished: None),
    ):
        yield


def at_speed(tokens_per_second: float) -> Callable[[int], None]:
    """A `wait` for so many tokens a second; what comes late is made up for."""
    first = 0.0

    def wait(index: int) -> None:
        nonlocal first
        if index == 0:
            first = time.monotonic()
        time.sleep(max(0.0, first + index / tokens_per_second - time.monotonic()))

    return wait
