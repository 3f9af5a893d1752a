"""Token ids to text, piece by piece, never splitting what a reader sees as one character.

Tokens of a byte-level vocabulary may end inside a character, and one visible character (an
emoji with a skin tone, a flag, a letter with an accent of its own) may be several code points.
So text is handed out only up to the last boundary between grapheme clusters: the last cluster
waits until the next one begins, or the answer ends.
"""

from __future__ import annotations

from typing import Protocol

import regex

_REPLACEMENT = "\ufffd"
# Text decoded together: long enough that a token's spelling does not depend on what came before.
_WINDOW_TOKENS = 32
_UNSURE_CHARACTERS = 3


class Decoder(Protocol):
    """The part of a tokenizer that is needed."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        """The text of tokens."""


class StreamDetokenizer:
    """Turns tokens into pieces of text; the pieces joined are the whole text.

    Work a token is constant: only a window of recent tokens is decoded again.

    Args:
        tokenizer: decodes ids; None gives empty texts.
    """

    def __init__(self, tokenizer: Decoder | None) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._settled = ""
        self._held = ""

    def push(self, token_id: int) -> str:
        """The text that became certain with this token; may be empty."""
        self._ids.append(token_id)
        text = self._decode(self._ids)
        # A token may end inside a character, which shows as U+FFFD until its bytes are complete.
        # Such an end is never longer than three bytes; U+FFFD before it is meant.
        unsure = min(len(text) - len(text.rstrip(_REPLACEMENT)), _UNSURE_CHARACTERS)
        sure = text[: len(text) - unsure]
        fresh = sure[len(self._settled) :]
        if fresh:
            self._settled = sure
        if not unsure:
            self._shrink()
        return self._up_to_last_cluster(fresh)

    def flush(self) -> str:
        """The rest, when no token follows."""
        rest = self._held + self._decode(self._ids)[len(self._settled) :]
        self._ids, self._settled, self._held = [], "", ""
        return rest

    def _decode(self, ids: list[int]) -> str:
        if self._tokenizer is None:
            return ""
        return self._tokenizer.decode(ids, skip_special_tokens=True)

    def _shrink(self) -> None:
        if len(self._ids) < 2 * _WINDOW_TOKENS:
            return
        kept = self._ids[-_WINDOW_TOKENS:]
        tail = self._decode(kept)
        # Only when the window's text is the end of the whole text: some tokenizers treat the
        # first token of a text differently.
        if tail and self._settled.endswith(tail) and not tail.startswith(_REPLACEMENT):
            self._ids, self._settled = kept, tail

    def _up_to_last_cluster(self, fresh: str) -> str:
        text = self._held + fresh
        if not text:
            return ""
        *_, last = regex.finditer(r"\X", text)
        self._held = text[last.start() :]
        return text[: last.start()]
