"""Sizes of memory as people write them."""

from __future__ import annotations

import pytest

from mom_core.errors import InvalidSetting
from mom_core.sizes import parse_size, size_text


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("24GiB", 24 * 2**30),
        ("24 gib", 24 * 2**30),
        ("24GB", 24 * 10**9),
        ("24", 24 * 2**30),
        ("1.5TiB", 3 * 2**39),
        ("512MiB", 2**29),
        ("8kB", 8000),
    ],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "much", "-1GiB", "0", "24XB", "GiB", "1e3", "0.1kB5"])
def test_what_is_not_a_size_is_a_sentence(text: str) -> None:
    with pytest.raises(InvalidSetting, match=r"is not a size of memory\. Write a number above 0"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 MiB"),
        (30_000, "29 KiB"),
        (200_000, "0.2 MiB"),
        (2**20 * 880, "880 MiB"),
        (2**30 * 1234.56, "1,234.6 GiB"),
    ],
)
def test_sizes_are_told_so_that_none_looks_like_nothing(size_bytes: float, text: str) -> None:
    assert size_text(size_bytes) == text
