"""Drafts by prompt lookup."""

from __future__ import annotations

import random
import tracemalloc
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from mom_core.generate.lookup import PromptLookup, _Index


def test_what_followed_the_last_tokens_before_is_offered() -> None:
    lookup = PromptLookup()
    assert lookup.draft([1, 2, 3, 4, 5, 6, 1, 2], 3, 9) == [4, 5, 6, 1, 2]
    assert lookup.draft([1, 2, 3, 4, 5, 6, 1, 2], 3, 2) == [4, 5]
    assert lookup.draft([1, 2, 3, 4, 5, 6, 1, 2], 9, 9) == []


def test_the_latest_place_counts() -> None:
    assert PromptLookup().draft([1, 2, 3, 7, 1, 2, 3, 8, 1, 2], 3, 1) == [8]


def test_a_cropped_context_is_as_if_it_had_never_been_longer() -> None:
    begun = [1, 2, 3, 4, 5, 6]
    lookup = PromptLookup()
    longer = [*begun, 1, 2, 3, 9, 9, 9, 7, 7, 7, 7]
    lookup.draft(longer, 7, 5)
    lookup.crop(longer, len(begun))
    assert lookup.draft([*begun, 1, 2], 3, 3) == [4, 5, 6]
    lookup.crop([*begun, 1, 2], 2)
    assert lookup.draft([1, 2, 8, 8, 1, 2], 3, 5) == []
    assert lookup.draft([1, 2, 8, 8, 1, 2, 3, 6, 6, 1, 2], 3, 2) == [6, 6]


@given(
    st.lists(st.tuples(st.integers(0, 30), st.lists(st.integers(0, 2), max_size=12)), max_size=8)
)
def test_the_index_does_not_depend_on_the_way_it_grew(
    steps: list[tuple[int, list[int]]],
) -> None:
    lookup, ids = PromptLookup(), list[int]()
    for cropped_to, added in steps:
        lookup.crop(ids, min(cropped_to, len(ids)))
        del ids[cropped_to:]
        ids += added
        for last in range(3):
            assert lookup.draft(ids, last, 9) == PromptLookup().draft(ids, last, 9)


def test_it_pauses_while_nothing_is_taken_and_comes_back() -> None:
    lookup, ids = PromptLookup(), [1, 2, 3, 4, 1, 2]
    offers = []
    for _ in range(200):
        draft = lookup.draft(ids, 3, 4)
        offers.append(bool(draft))
        if draft:
            lookup.learn(0)
    assert 3 < sum(offers) < 20
    for _ in range(600):
        if lookup.draft(ids, 3, 4):
            lookup.learn(4)
    assert lookup.draft(ids, 3, 4)
    lookup.learn(0)
    lookup.begin(ids, 9)
    assert lookup.draft(ids, 3, 4)


def test_a_long_context_is_found_in_and_the_index_stays_small() -> None:
    draw = random.Random(0)
    ids = [draw.randrange(50_000) for _ in range(20_000)]
    lookup = PromptLookup()
    tracemalloc.start()
    try:
        lookup.draft(ids, 0, 7)
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < 20 * len(ids)
    for at in range(3, len(ids) - 9, 997):
        ids += ids[at - 3 : at - 1]
        assert lookup.draft(ids, ids[at - 1], 7) == ids[at : at + 7]


def test_the_index_is_built_before_the_answer_and_not_again() -> None:
    """A long document must not be taken in between two tokens."""
    # With the answer it outgrows a power of two.
    ids = [token % 999 for token in range(4090)]
    lookup = PromptLookup()
    lookup.begin(ids, 400)
    with mock.patch.object(_Index, "_place", autospec=True, side_effect=_Index._place) as place:
        for token in range(400):
            lookup.draft(ids, token, 7)
            ids.append(token)
    assert place.call_count <= 2 * 400


def test_short_contexts_give_nothing() -> None:
    for ids in ([], [1], [1, 1], [1, 1, 1]):
        assert PromptLookup().draft(ids, 1, 5) in ([], [1])
