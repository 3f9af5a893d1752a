"""What a model has read: token ids, with their keys and values or recurrent states."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mom_core.errors import InvalidSetting
from mom_core.generate.lookup import PromptLookup
from mom_core.generate.resume import Unfinished
from mom_core.kv.store import KVStore
from mom_core.model.seam.cache import segment_cache


class Context:
    """Token ids that the engine has read or generated, and what its layers keep of them.

    Made by `Engine.new_context`. The attributes are for the engine.

    Args:
        store: keys, values and states of all layers.

    Attributes:
        store: as given.
        cache: the store as transformers sees it.
        ids: ids of the tokens in the store, in step with it.
        lookup: finds drafts in the ids.
        unfinished: holds an interrupted reading.
    """

    def __init__(self, store: KVStore) -> None:
        self.store = store
        self.cache = segment_cache(store.layers)
        self.ids: list[int] = []
        self.lookup = PromptLookup()
        self.unfinished = Unfinished()
        self._logits: tuple[int, Tensor] | None = None

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Ids of all tokens read or generated, in order."""
        return tuple(self.ids)

    @property
    def tokens(self) -> int:
        """The number of tokens, T."""
        return len(self.ids)

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values held."""
        return self.store.used_bytes

    def crop(self, n_tokens: int) -> None:
        """Drops everything after the first `n_tokens` tokens.

        A recurrent model goes back to the nearest state kept before that point, so fewer tokens
        may be left; `tokens` says how many.

        Raises:
            InvalidSetting: `n_tokens` is not between 0 and the tokens held.
        """
        if not 0 <= n_tokens <= self.tokens:
            raise InvalidSetting(
                f"crop to {n_tokens} tokens: the context holds {self.tokens}; "
                f"give a number from 0 to {self.tokens}."
            )
        if n_tokens < self.tokens:
            self.unfinished.reading = None
            left = self.store.crop(n_tokens)
            self.lookup.crop(self.ids, left)
            del self.ids[left:]

    def branch(self) -> Context:
        """A copy that shares the memory of keys and values; each then changes on its own."""
        other = Context(self.store.branch())
        other.ids = list(self.ids)
        other._logits = self._logits
        if self.has_unfinished:
            del other.ids[other.store.roll_back(self.tokens) :]
        return other

    def drop_unfinished(self) -> None:
        """Forgets what an interrupted reading left, and frees it."""
        if self.unfinished.reading is not None:
            self.unfinished.reading = None
            del self.ids[self.store.roll_back(self.tokens) :]

    @property
    def has_unfinished(self) -> bool:
        """Whether an interrupted reading is there to resume."""
        return self.unfinished.reading is not None

    def note_logits(self, logits: Tensor | None) -> None:
        """Remembers the next token's logits `[V]`, fp32, after all tokens held now."""
        self._logits = None if logits is None else (self.tokens, logits)

    def logits_after(self, n_tokens: int) -> Tensor | None:
        """The logits `[V]` after exactly `n_tokens` tokens, if they are still known."""
        if self._logits is None or self._logits[0] != n_tokens:
            return None
        return self._logits[1]

    def common_prefix_tokens(self, token_ids: Sequence[int]) -> int:
        """The number of tokens at the beginning of `token_ids` that are already here."""
        return common_tokens(self.ids, token_ids)

    def saves_tokens(self, token_ids: Sequence[int]) -> float:
        """The common prefix in tokens; those of an interrupted reading count by its done share."""
        common, reading = self.common_prefix_tokens(token_ids), self.unfinished.reading
        if reading is None or common < reading.past:
            return common
        more = common_tokens(reading.token_ids, token_ids[reading.past :])
        return common + more * reading.fraction(len(self.store.layers))


def common_tokens(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the common prefix of two sequences of ids."""
    limit = min(len(one), len(other))
    if list(one[:limit]) == list(other[:limit]):
        return limit
    return next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
