"""Drafts by prompt lookup."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mom_core.generate.lookup import PromptLookup


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
    lookup.draft([*begun, 1, 2, 3, 9, 9, 9, 7, 7, 7, 7], 7, 5)
    lookup.crop(len(begun))
    assert lookup.draft([*begun, 1, 2], 3, 3) == [4, 5, 6]
    lookup.crop(2)
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
        del ids[cropped_to:]
        lookup.crop(len(ids))
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
    lookup.begin()
    assert lookup.draft(ids, 3, 4)


def test_short_contexts_give_nothing() -> None:
    for ids in ([], [1], [1, 1], [1, 1, 1]):
        assert PromptLookup().draft(ids, 1, 5) in ([], [1])
