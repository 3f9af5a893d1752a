"""Drafts by prompt lookup: answers about a document quote it.

When the last few tokens occurred before, what followed them then is offered as a draft; the
model reads the draft in one step and keeps as much of it as it would have said itself. So it
changes the number of steps, not the answer.

Source: prompt lookup decoding (A. Saxena, 2023), a case of speculative decoding
(arXiv:2211.17192); when to offer is ours.
"""

from __future__ import annotations

from array import array
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
# Of the index: its table has a power of two of places, at least one a token; a chain that is
# longer than this holds tokens that the document repeats all over, and another may do without.
_SMALLEST_TABLE = 1 << 10
_LONGEST_CHAIN = 64
_MIX = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


class _Index:
    """Where the latest occurrence of some tokens ends, in eight to sixteen bytes a token.

    Positions with the same hash are chained, latest first, as LZ77 compressors do it. A
    dictionary of tuples would take three hundred bytes a token.
    """

    def __init__(self) -> None:
        # By hash: where the latest ends, 0 for none. By position: the one before it in the chain.
        self._heads = array("i", bytes(4 * _SMALLEST_TABLE))
        self._before = array("i")

    def make_room(self, tokens: int) -> None:
        """For a context of so many tokens; if the table must grow, everything is indexed again."""
        size = len(self._heads)
        while tokens > size:
            size *= 2
        if size > len(self._heads):
            self._heads = array("i", bytes(4 * size))
            self._before = array("i")

    def follow(self, ids: Sequence[int]) -> None:
        """Takes in what the context has gained; its last tokens have no continuation yet."""
        self.make_room(len(ids))
        for end in range(_MATCH_TOKENS + len(self._before), len(ids)):
            place = self._place(ids[end - _MATCH_TOKENS : end])
            self._before.append(self._heads[place])
            self._heads[place] = end

    def crop(self, ids: Sequence[int], tokens: int) -> None:
        """Gives up everything that needs more than the first `tokens` of the ids it followed."""
        while self._before and _MATCH_TOKENS + len(self._before) > tokens:
            end = _MATCH_TOKENS - 1 + len(self._before)
            self._heads[self._place(ids[end - _MATCH_TOKENS : end])] = self._before.pop()

    def find(self, ids: Sequence[int], tail: list[int]) -> int | None:
        """Where the latest occurrence of the tail ends; None if it did not occur."""
        end = self._heads[self._place(tail)]
        for _ in range(_LONGEST_CHAIN):
            if not end:
                return None
            if ids[end - _MATCH_TOKENS : end] == tail:
                return end
            end = self._before[end - _MATCH_TOKENS]
        return None

    def _place(self, tokens: Sequence[int]) -> int:
        value = 0
        for token in tokens:
            value = (value * _MIX + token) & _MASK
        return (value >> 24) & (len(self._heads) - 1)


class PromptLookup:
    """Offers drafts for one context, and pauses while they are not taken.

    The index follows the context as it grows and is cropped; nothing in it is looked at twice.
    """

    def __init__(self) -> None:
        self._index = _Index()
        self._hope()

    def begin(self, context_ids: list[int], new_tokens: int) -> None:
        """A new answer: the whole context is taken in now, and not between two of its tokens.

        Args:
            context_ids: what was read.
            new_tokens: the most that the answer may have.
        """
        self._index.make_room(len(context_ids) + new_tokens)
        self._index.follow(context_ids)
        self._hope()

    def _hope(self) -> None:
        # How an answer goes must not depend on answers before.
        self._expected = _HOPED_FOR
        self._pause = 0
        self._next_pause = 1

    def crop(self, context_ids: list[int], tokens: int) -> None:
        """The context will lose everything after its first `tokens` tokens."""
        self._index.crop(context_ids, tokens)

    def draft(self, context_ids: list[int], last: int, most: int) -> list[int]:
        """Tokens that may come next; empty when there is no guess.

        Args:
            context_ids: what was read.
            last: the token that is read next.
            most: how many tokens may be offered.
        """
        self._index.follow(context_ids)
        if self._pause:
            self._pause -= 1
            return []
        tail = [*context_ids[max(0, len(context_ids) + 1 - _MATCH_TOKENS) :], last]
        start = self._index.find(context_ids, tail)
        if start is None:
            return []
        return context_ids[start : start + min(most, _DRAFT_TOKENS)]

    def learn(self, accepted: int) -> None:
        """How much of a draft was taken."""
        self._expected = _MEMORY * self._expected + (1 - _MEMORY) * accepted
        if self._expected >= _PAYS_FROM:
            self._next_pause = 1
        else:
            self._pause = self._next_pause
            self._next_pause = min(2 * self._next_pause, _LONGEST_PAUSE)
