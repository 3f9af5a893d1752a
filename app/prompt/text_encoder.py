"""Text to token ids: in batches over all cores, long texts in pieces, known texts from the disk.

The rule of boundaries. A section's mark, its text and every other text are each encoded apart,
so that taking one out changes no other. Within a text the ids are those of encoding it in one
go: a long one is cut only where its tokenizer never joins what is before and behind, which is
tried on a probe first (before a word that follows a line end or a blank). A run of more than
a million characters without such a place is cut hard.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

from app.documents.cache import DiskCache

_PIECE_CHARACTERS = 64 * 1024
_HARD_CUT_CHARACTERS = 1_000_000
_BATCH_CHARACTERS = 1_000_000
# Between a line end or blank that stands alone and a letter: pre-tokenizers cut there.
_CUTS = (re.compile(r"(?<=\S\n)(?=[^\W\d_])"), re.compile(r"(?<=[^\W\d_])(?= [^\W\d_])"))
_PROBE = (
    'def f(x):\n    return x  # é\nfoo bar baz.\nIt\'s 12 "quoted" words,\nÜber uns\n'
    "\tтекст и слова\n"
    "a b  c\n\nd e.\ncamelCase snake_case\nund so weiter\n日本語\nabc def\nX1 y\n- item\nlast line"
)


class TextEncoder:
    """Encodes texts in which no mark of a chat template means anything.

    Args:
        encode_pieces: the tokenizer: texts to ids, without any token of its own.
        marks: tokens that structure a conversation, by id.
        form: all that decides the ids, to know them again; None where that is not known.
        cache: where ids are kept between runs; None keeps nothing.
    """

    def __init__(
        self,
        encode_pieces: Callable[[list[str]], list[list[int]]],
        marks: dict[int, str],
        form: str | None = None,
        cache: DiskCache | None = None,
    ) -> None:
        self._encode_pieces = encode_pieces
        self._marks = marks
        self._mark_ids = frozenset(marks)
        self._cache = None if form is None else cache
        self._fingerprint = hashlib.sha256(f"{form}{sorted(marks.items())}".encode()).hexdigest()
        self._cuts = tuple(cut for cut in _CUTS if self._is_safe(cut))

    @classmethod
    def of_backend(
        cls, backend: Any, marks: dict[int, str], cache: DiskCache | None = None
    ) -> TextEncoder:
        """An encoder for a `tokenizers.Tokenizer`, of which a copy is used."""
        from tokenizers import Tokenizer

        # A copy, as its settings are shared by all threads that use it.
        form: str = backend.to_str()
        copy: Any = Tokenizer.from_str(form)
        copy.no_truncation()
        copy.no_padding()
        copy.encode_special_tokens = True

        def encode_pieces(pieces: list[str]) -> list[list[int]]:
            return [e.ids for e in copy.encode_batch_fast(pieces, add_special_tokens=False)]

        return cls(encode_pieces, marks, form, cache)

    def encode(self, texts: Sequence[str]) -> list[array[int]]:
        """Ids of each text."""
        return list(self._encode(texts))

    def encode_known(self, texts: Sequence[str]) -> list[array[int]]:
        """Ids of each text, from the disk if the same texts were encoded before."""
        if self._cache is None or not texts:
            return self.encode(texts)
        digest = hashlib.sha256(self._fingerprint.encode())
        for text in texts:
            digest.update(b"%d:" % len(text) + text.encode("utf-8", "surrogatepass"))
        key = f"tokens-{digest.hexdigest()}"
        known = self._cache.get(key)
        if known is not None and (found := _unpack(known, len(texts))) is not None:
            return found
        ids = self.encode(texts)
        self._cache.put(key, _pack(ids))
        return ids

    def _encode(self, texts: Iterable[str]) -> Iterator[array[int]]:
        """In batches of pieces, so that one long text needs no more memory than many short."""
        batch: list[tuple[str, bool]] = []
        size = 0
        ids = array("I")
        for text in texts:
            for piece, is_last in self._pieces(text):
                batch.append((piece, is_last))
                size += len(piece)
                if size >= _BATCH_CHARACTERS:
                    ids = yield from self._encode_batch(batch, ids)
                    batch, size = [], 0
        yield from self._encode_batch(batch, ids)

    def _encode_batch(
        self, batch: list[tuple[str, bool]], ids: array[int]
    ) -> Generator[array[int], None, array[int]]:
        """Yields the ids of each text that ends in the batch.

        Args:
            batch: pieces, and whether each is the last of its text.
            ids: the text that began in an earlier batch.

        Returns:
            The ids of the text that goes on in the next batch.
        """
        # Not every tokenizer takes an empty batch.
        encoded = self._encode_pieces([piece for piece, _ in batch]) if batch else []
        for (piece, is_last), found in zip(batch, encoded, strict=True):
            ids.extend(self._encode_broken(piece) if self._mark_ids.intersection(found) else found)
            if is_last:
                yield ids
                ids = array("I")
        return ids

    def _encode_broken(self, text: str) -> list[int]:
        """Some tokenizers find marks in any text: break each one after its first character."""
        mark = re.compile("|".join(re.escape(mark) for mark in self._marks.values()))
        ends = [match.start() + 1 for match in mark.finditer(text)]
        pieces = [text[i:j] for i, j in zip([0, *ends], [*ends, len(text)], strict=True)]
        return [
            token_id
            for ids in self._encode_pieces(pieces)
            for token_id in ids
            if token_id not in self._mark_ids
        ]

    def _pieces(self, text: str) -> Iterator[tuple[str, bool]]:
        """Each with whether it is the last."""
        start = 0
        while len(text) - start > _PIECE_CHARACTERS:
            end = self._last_cut(text, start)
            if end is None:
                break
            yield text[start:end], False
            start = end
        yield text[start:], True

    def _last_cut(self, text: str, start: int) -> int | None:
        """Where the next piece ends; None if the rest is the last one."""
        reach = start + _PIECE_CHARACTERS
        while True:
            reach = min(reach, len(text))
            for cut in self._cuts:
                # The end of the stretch first: most texts have a place there.
                for begin in (max(start + 1, reach - 2048), start + 1):
                    found = [match.start() for match in cut.finditer(text, begin, reach)]
                    if found:
                        return found[-1]
            if reach == len(text):
                return None
            if reach - start >= _HARD_CUT_CHARACTERS:
                return reach
            reach = start + 4 * (reach - start)

    def _is_safe(self, cut: re.Pattern[str]) -> bool:
        """Whether this tokenizer gives the same ids for the probe and for its pieces."""
        ends = [match.start() for match in cut.finditer(_PROBE)]
        pieces = [_PROBE[i:j] for i, j in zip([0, *ends], [*ends, len(_PROBE)], strict=True)]
        whole = self._encode_pieces([_PROBE])[0]
        return whole == [token_id for ids in self._encode_pieces(pieces) for token_id in ids]


def _pack(ids: list[array[int]]) -> bytes:
    lengths = array("I", map(len, ids))
    return lengths.tobytes() + b"".join(one.tobytes() for one in ids)


def _unpack(data: bytes, texts: int) -> list[array[int]] | None:
    """None where the bytes do not hold so many texts."""
    numbers = array("I")
    if len(data) % numbers.itemsize:
        return None
    numbers.frombytes(data)
    lengths, ids = numbers[:texts], numbers[texts:]
    if len(lengths) != texts or sum(lengths) != len(ids):
        return None
    found, start = [], 0
    for length in lengths:
        found.append(ids[start : start + length])
        start += length
    return found
