"""Drafts by prompt lookup: answers about a document quote it.

When the last few tokens occurred before, what followed them then is offered as a draft; the
model reads the draft in one step and keeps as much of it as it would have said itself. So it
changes the number of steps, not the answer.

Source: prompt lookup decoding (A. Saxena, 2023), a case of speculative decoding
(arXiv:2211.17192); when to offer is ours.
"""

from __future__ import annotations

from collections.abc import Sequence

_MATCH_TOKENS = 3
# With the token itself eight rows, what the kernel for attention takes in groups of three.
_DRAFT_TOKENS = 7
# Accepted tokens a draft must bring on average: on a CPU a step of eight rows costs about as much
# as three of one (docs/log.md). Counted, not timed: an answer must not depend on the clock.
_PAYS_FROM = 2.2
_HOPED_FOR = 4.0
_MEMORY = 0.8
_LONGEST_PAUSE = 64


class PromptLookup:
    """Offers drafts for one context, and pauses while they are not taken.

    The index follows the context as it grows and is cropped; nothing in it is looked at twice.
    """

    def __init__(self) -> None:
        # Where the tokens after the latest occurrence of some tokens begin; of every occurrence,
        # which tokens they were, and where the one before was.
        self._latest: dict[tuple[int, ...], int] = {}
        self._occurrences: list[tuple[tuple[int, ...], int | None]] = []
        self.begin()

    def begin(self) -> None:
        """A new answer: how it goes must not depend on answers before."""
        self._expected = _HOPED_FOR
        self._pause = 0
        self._next_pause = 1

    def crop(self, tokens: int) -> None:
        """The context has lost everything after its first `tokens` tokens."""
        while self._occurrences and _MATCH_TOKENS + len(self._occurrences) > tokens:
            key, before = self._occurrences.pop()
            if before is None:
                del self._latest[key]
            else:
                self._latest[key] = before

    def draft(self, context_ids: Sequence[int], last: int, most: int) -> list[int]:
        """Tokens that may come next; empty when there is no guess.

        Args:
            context_ids: what was read.
            last: the token that is read next.
            most: how many tokens may be offered.
        """
        self._index(context_ids)
        if self._pause:
            self._pause -= 1
            return []
        tail = (*context_ids[max(0, len(context_ids) + 1 - _MATCH_TOKENS) :], last)
        start = self._latest.get(tail)
        if start is None:
            return []
        return list(context_ids[start : start + min(most, _DRAFT_TOKENS)])

    def learn(self, accepted: int) -> None:
        """How much of a draft was taken."""
        self._expected = _MEMORY * self._expected + (1 - _MEMORY) * accepted
        if self._expected >= _PAYS_FROM:
            self._next_pause = 1
        else:
            self._pause = self._next_pause
            self._next_pause = min(2 * self._next_pause, _LONGEST_PAUSE)

    def _index(self, ids: Sequence[int]) -> None:
        # The last tokens have no continuation yet.
        for end in range(_MATCH_TOKENS + len(self._occurrences), len(ids)):
            key = tuple(ids[end - _MATCH_TOKENS : end])
            self._occurrences.append((key, self._latest.get(key)))
            self._latest[key] = end
