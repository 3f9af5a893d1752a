"""What a model has read: token ids, and keys, values and states after them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mom_core.errors import InvalidSetting
from mom_core.generate.lookup import PromptLookup
from mom_core.generate.resume import Unfinished
from mom_core.kv.store import KVStore
from mom_core.model.seam.cache import segment_cache


class Context:
    """What the engine has read: token ids and their keys and values, or recurrent states.

    Made by `Engine.new_context`.
    """

    def __init__(self, store: KVStore) -> None:
        self._store = store
        self._cache = segment_cache(store.layers)
        self._token_ids: list[int] = []
        self._lookup = PromptLookup()
        self._unfinished = Unfinished()
        self._next_logits: Tensor | None = None
        self._logits_at = 0

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Ids of all tokens read or generated, in order."""
        return tuple(self._token_ids)

    @property
    def tokens(self) -> int:
        """Their number, T."""
        return len(self._token_ids)

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values held."""
        return self._store.used_bytes

    def crop(self, n_tokens: int) -> None:
        """Drops everything after the first `n_tokens` tokens.

        A recurrent model goes back to the nearest state kept before that, so fewer may be left:
        `tokens` tells.

        Raises:
            InvalidSetting: `n_tokens` is not between 0 and the tokens held.
        """
        if not 0 <= n_tokens <= self.tokens:
            raise InvalidSetting(
                f"crop to {n_tokens} tokens: the context holds {self.tokens}; "
                f"give a number from 0 to {self.tokens}."
            )
        if n_tokens < self.tokens:
            self._unfinished.reading = None
            left = self._store.crop(n_tokens)
            self._lookup.crop(self._token_ids, left)
            del self._token_ids[left:]

    def branch(self) -> Context:
        """The same once more, sharing the memory of keys and values; each goes its own way."""
        other = Context(self._store.branch())
        other._token_ids = list(self._token_ids)
        other._next_logits, other._logits_at = self._next_logits, self._logits_at
        if self.has_unfinished:
            del other._token_ids[other._store.roll_back(self.tokens) :]
        return other

    def drop_unfinished(self) -> None:
        """Forgets what an interrupted reading left, and frees it."""
        if self._unfinished.reading is not None:
            self._unfinished.reading = None
            del self._token_ids[self._store.roll_back(self.tokens) :]

    @property
    def has_unfinished(self) -> bool:
        """Whether an interrupted reading is there to be taken up."""
        return self._unfinished.reading is not None

    def knows_logits_at(self, n_tokens: int) -> bool:
        """Whether the logits after exactly `n_tokens` tokens are still known."""
        return self._next_logits is not None and self._logits_at == n_tokens

    def common_prefix_tokens(self, token_ids: Sequence[int]) -> int:
        """How many tokens at the beginning of `token_ids` are already here."""
        return common_tokens(self._token_ids, token_ids)

    def saves_tokens(self, token_ids: Sequence[int]) -> float:
        """The same, and tokens of an interrupted reading by the share of it that is done."""
        common, reading = self.common_prefix_tokens(token_ids), self._unfinished.reading
        if reading is None or common < reading.past:
            return common
        more = common_tokens(reading.token_ids, token_ids[reading.past :])
        return common + more * reading.fraction(len(self._store.layers))


def common_tokens(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of their common beginning."""
    limit = min(len(one), len(other))
    if list(one[:limit]) == list(other[:limit]):
        return limit
    return next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
