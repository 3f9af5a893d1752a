"""Ids of texts: pieces, batches and the disk change nothing."""

from __future__ import annotations

import tracemalloc
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import app.prompt.text_encoder as module
from app.documents import DiskCache, Document, Section
from app.prompt.prompt import tokenize
from app.prompt.text_encoder import TextEncoder

pytestmark = pytest.mark.builtin

words = st.text(st.sampled_from("abcdeéñ 日本\n\t.,;:'\"0123(){}_-🙂AB"), max_size=400)


@pytest.fixture(scope="module")
def backend() -> Any:
    from tokenizers import Tokenizer

    from mom_core.model.builtin import ensure_builtin

    return Tokenizer.from_file(str(ensure_builtin() / "tokenizer.json"))


@pytest.fixture(scope="module")
def encoder(backend: Any) -> TextEncoder:
    return TextEncoder.of_backend(backend, {})


def whole(backend: Any, text: str) -> list[int]:
    ids: list[int] = backend.encode(text, add_special_tokens=False).ids
    return ids


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(words, max_size=5), piece=st.integers(3, 60))
def test_pieces_equal_the_text_in_one_go(
    backend: Any, encoder: TextEncoder, texts: list[str], piece: int
) -> None:
    before = module._PIECE_CHARACTERS, module._HARD_CUT_CHARACTERS
    module._PIECE_CHARACTERS, module._HARD_CUT_CHARACTERS = piece, 10_000
    try:
        found = [list(ids) for ids in encoder.encode(texts)]
    finally:
        module._PIECE_CHARACTERS, module._HARD_CUT_CHARACTERS = before
    assert found == [whole(backend, text) for text in texts]


def test_real_text_is_cut_and_equal(backend: Any) -> None:
    text = Path(__file__).read_text() * 30
    encoder = TextEncoder.of_backend(backend, {})
    assert len(list(encoder._pieces(text))) > 1
    assert list(encoder.encode([text])[0]) == whole(backend, text)


def test_cuts_are_tried_before_they_are_used(backend: Any) -> None:
    """A tokenizer that joins across line ends is never cut there: here one that counts them."""

    def joins(pieces: list[str]) -> list[list[int]]:
        return [[len(piece)] for piece in pieces]

    encoder = TextEncoder(joins, {})
    assert encoder._cuts == ()
    assert list(encoder.encode(["word\n" * 50_000])[0]) == [250_000]
    assert len(TextEncoder.of_backend(backend, {})._cuts) == 2


def test_a_run_without_any_place_to_cut_is_cut_hard(backend: Any) -> None:
    encoder = TextEncoder.of_backend(backend, {})
    pieces = [piece for piece, _ in encoder._pieces("x" * 2_500_000)]
    assert "".join(pieces) == "x" * 2_500_000
    assert max(map(len, pieces)) <= 4 * module._HARD_CUT_CHARACTERS


def test_known_texts_come_from_the_disk(backend: Any, tmp_path: Path) -> None:
    texts = ["some words", "", "others"]
    first = TextEncoder.of_backend(backend, {}, DiskCache(tmp_path)).encode_known(texts)
    assert first == [array("I", whole(backend, text)) for text in texts]

    def fails(pieces: list[str]) -> list[list[int]]:
        raise AssertionError("it was to come from the disk")

    again = TextEncoder.of_backend(backend, {}, DiskCache(tmp_path))
    again._encode_pieces = fails
    assert again.encode_known(texts) == first
    with pytest.raises(AssertionError):
        again.encode_known(texts[:2])
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"damaged")
    with pytest.raises(AssertionError):
        again.encode_known(texts)


def test_ids_of_another_tokenizer_are_not_taken(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    one = TextEncoder(lambda pieces: [[1] for _ in pieces], {}, "one", cache)
    two = TextEncoder(lambda pieces: [[2] for _ in pieces], {}, "two", cache)
    assert one.encode_known(["words"]) == [array("I", [1])]
    assert two.encode_known(["words"]) == [array("I", [2])]


def test_a_long_text_takes_memory_for_its_ids_alone() -> None:
    """Numbers in a list take nine times as much as in an array."""

    def encode(pieces: list[str]) -> list[list[int]]:
        return [[number + 1_000 for number in range(len(piece) // 5)] for piece in pieces]

    encoder = TextEncoder(encode, {})
    document = Document("a.txt", "text", (Section("a.txt", "word " * 800_000),))
    tracemalloc.start()
    try:
        tokenized = tokenize(document, encoder)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert tokenized.tokens > 700_000
    # The text once more, its ids, and one batch of pieces with theirs.
    assert peak_bytes < 24_000_000
