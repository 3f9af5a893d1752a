"""Streamed pieces joined are the whole text, and no piece splits a character."""

from __future__ import annotations

import regex
from hypothesis import given
from hypothesis import strategies as st

from mom_core.generate.detokenize import StreamDetokenizer


class Bytes:
    """A byte-level tokenizer of one byte a token: the hardest case."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        return bytes(token_ids).decode("utf-8", "replace")


EMOJI = ["👩‍👩‍👧‍👦", "🇳🇴", "👍🏽", "e\u0301", "한국어", "नमस्ते", "\r\n", "plain words "]
texts = st.lists(st.one_of(st.sampled_from(EMOJI), st.text(max_size=5)), max_size=12).map("".join)


@given(texts.filter(lambda text: "\ufffd" not in text))
def test_pieces_are_whole_characters(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    detokenizer = StreamDetokenizer(Bytes())
    pieces = [detokenizer.push(byte) for byte in text.encode()]
    pieces.append(detokenizer.flush())
    assert "".join(pieces) == text
    boundaries = {match.start() for match in regex.finditer(r"\X", text)} | {len(text)}
    position = 0
    for piece in pieces:
        position += len(piece)
        assert position in boundaries, (piece, text)


@given(st.lists(st.integers(0, 255), max_size=300))
def test_broken_bytes_are_never_lost(token_ids: list[int]) -> None:
    detokenizer = StreamDetokenizer(Bytes())
    pieces = [detokenizer.push(token_id) for token_id in token_ids]
    text = "".join(pieces) + detokenizer.flush()
    whole = bytes(token_ids).decode("utf-8", "replace")
    assert text.replace("\ufffd", "") == whole.replace("\ufffd", "")
