"""Makes a context hold a prompt: what it holds already is reused, the rest is read.

Source: ours.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from torch import Tensor

from mom_core.context import Context, common_tokens
from mom_core.errors import ContextTooLong, InvalidSetting
from mom_core.events import ReadingEvent
from mom_core.generate.checkpoint import CheckpointWriter
from mom_core.generate.prefill import prefill
from mom_core.generators import draw
from mom_core.held_bytes import WorkingBytes
from mom_core.kv.oom import memory_errors_as_sentences
from mom_core.kv.store import KVStore
from mom_core.kv.tiers import device_tier
from mom_core.model.seam.decoder import HFSeam
from mom_core.model.work import layer_shapes
from mom_core.placement import Placement
from mom_core.strategy import Strategy

# Recurrent states are kept at least this far apart, and so seldom that they take at most this
# share of what keys and values take. A context ends up with at most this number of them.
_STATE_SPACING_TOKENS = 2048
_STATE_SHARE = 0.1
_KEPT_STATES = 64


class Reader:
    """Reads prompts into contexts.

    Args:
        seam: the model.
        placement: where things lie.
        name: the model's, for sentences.
        working: kept up to date with the bytes of a reading's working buffers.

    Attributes:
        seam: as given.
        working: as given.
    """

    def __init__(
        self, seam: HFSeam, placement: Placement, name: str, working: WorkingBytes
    ) -> None:
        self.seam = seam
        self._placement = placement
        self._name = name
        self.working = working
        self._shapes = layer_shapes(seam)
        self._state_bytes: int | None = None

    def check(self, token_ids: Sequence[int]) -> None:
        """Refuses a prompt that the model cannot read.

        Raises:
            ContextTooLong: it exceeds the model's window.
            InvalidSetting: it has no tokens, or an id outside the vocabulary.
        """
        if len(token_ids) == 0:
            raise InvalidSetting("The prompt has no tokens; give it at least one.")
        lowest, highest = min(token_ids), max(token_ids)
        if lowest < 0 or highest >= self.seam.vocabulary_size:
            wrong = lowest if lowest < 0 else highest
            raise InvalidSetting(
                f"The prompt has the token id {wrong}; {self._name} knows ids from 0 to "
                f"{self.seam.vocabulary_size - 1}. Was it made with another tokenizer?"
            )
        tokens, window = len(token_ids), self._placement.window_tokens
        if tokens > window:
            raise ContextTooLong(
                f"The prompt has {tokens:,} tokens, and {self._name} can read at most "
                f"{window:,}. Nothing was cut: leave out {tokens - window:,} tokens, or choose a "
                "model with a longer context window."
            )

    def crop(self, context: Context, prompt_ids: Sequence[int]) -> int:
        """Crops a context to what it shares with a prompt.

        Returns:
            The number of tokens that are left, and need not be read.
        """
        common = context.common_prefix_tokens(prompt_ids)
        if self.rope_limit_after(context.tokens) != self.rope_limit_after(len(prompt_ids)):
            common = 0
        if common == len(prompt_ids) and context.logits_after(common) is None:
            common -= 1
        context.crop(common)
        return context.tokens

    def read(
        self,
        context: Context,
        prompt_ids: Sequence[int],
        strategy: Strategy,
        *,
        boundaries: Sequence[int] = (),
        checkpoints: CheckpointWriter | None = None,
    ) -> Generator[ReadingEvent, None, Tensor]:
        """Reads what a cropped context lacks of a prompt.

        Args:
            context: cropped to a prefix of the prompt.
            prompt_ids: the whole prompt.
            strategy: the settings.
            boundaries: positions where a document or a turn ends; see `Engine.generate`.
            checkpoints: keeps the reading on disk; None keeps it nowhere.

        Returns:
            The next token's logits `[V]`, fp32.
        """
        reused = context.tokens
        if reused == len(prompt_ids) and (known := context.logits_after(reused)) is not None:
            context.drop_unfinished()
            return known
        return (
            yield from self.append(
                context,
                list(prompt_ids[reused:]),
                strategy,
                reused_tokens=reused,
                boundaries=boundaries,
                checkpoints=checkpoints,
            )
        )

    def append(
        self,
        context: Context,
        token_ids: list[int],
        strategy: Strategy,
        *,
        reused_tokens: int = 0,
        boundaries: Sequence[int] = (),
        checkpoints: CheckpointWriter | None = None,
    ) -> Generator[ReadingEvent, None, Tensor]:
        """Reads tokens and appends them to a context; the rest is as for `read`.

        Args:
            context: any.
            token_ids: at least one.
            strategy: the settings.
            reused_tokens: reported only: tokens of the prompt that need not be read.
            boundaries: as for `read`.
            checkpoints: as for `read`.
        """
        store, placement = context.store, self._placement
        total = context.tokens + len(token_ids)
        if self.rope_limit_after(context.tokens) != self.rope_limit_after(total):
            token_ids = [*context.ids, *token_ids]
            context.crop(0)
        placement.prepare(store, strategy, context.tokens, total)
        keep_states_at = self._keep_states_at(total, boundaries)
        resumed = self._resume(context, token_ids)
        # When only a part of an interrupted reading serves, its files cannot be continued.
        if checkpoints is not None and resumed in (0, len(token_ids)):
            checkpoints.begin([*context.ids, *token_ids], store)
        logits: Tensor | None = None
        for part in (token_ids[:resumed], token_ids[resumed:]):
            if not part:
                continue
            with memory_errors_as_sentences():
                logits = yield from prefill(
                    self.seam,
                    store,
                    part,
                    reused_tokens=reused_tokens,
                    strategy=strategy,
                    tiers=placement.tiers,
                    shapes=self._shapes,
                    working=self.working,
                    keep_states_at=keep_states_at,
                    unfinished=context.unfinished,
                    checkpoints=checkpoints,
                )
            context.ids.extend(part)
        store.thin_states(_KEPT_STATES)
        assert logits is not None
        context.note_logits(logits)
        return logits

    def read_alone(self, context: Context, token_ids: list[int], strategy: Strategy) -> Tensor:
        """Reads tokens into an emptied context, without the care that a person's prompt gets.

        Returns:
            The next token's logits `[V]`, fp32.
        """
        context.crop(0)
        reading = prefill(
            self.seam,
            context.store,
            token_ids,
            reused_tokens=0,
            strategy=strategy,
            tiers=self._placement.tiers,
            shapes=self._shapes,
            working=self.working,
        )
        logits = draw(reading)
        context.ids[:] = token_ids
        return logits

    def _resume(self, context: Context, token_ids: list[int]) -> int:
        """The number of these tokens that an interrupted reading serves; else it is dropped."""
        reading = context.unfinished.reading
        if reading is None:
            return 0
        whole, common = len(reading.token_ids), common_tokens(reading.token_ids, token_ids)
        lengths = [reading.past + n for n in (common, whole, len(token_ids))]
        is_same = reading.past == context.tokens and (
            len({self.rope_limit_after(length) for length in lengths}) == 1
        )
        if common and is_same and reading.crop(context.store, common):
            return len(reading.token_ids)
        context.drop_unfinished()
        return 0

    def rope_limit_after(self, tokens: int) -> int | None:
        """The length up to which positions are rotated as in a sequence of `tokens` tokens."""
        limit = self.seam.rope_limit()
        return limit if limit is not None and tokens <= limit else None

    def _keep_states_at(self, total: int, boundaries: Sequence[int]) -> frozenset[int]:
        """Where recurrent states are kept: at the boundaries, and every so often between."""
        if not self.seam.recurrent_layers:
            return frozenset()
        if self._state_bytes is None:
            with memory_errors_as_sentences():
                self._state_bytes = self._measured_state_bytes()
        per_token = max(1, self._placement.kv_bytes_per_token)
        spacing = max(_STATE_SPACING_TOKENS, int(self._state_bytes / (_STATE_SHARE * per_token)))
        return frozenset(boundaries) | frozenset(range(spacing, total, spacing))

    def _measured_state_bytes(self) -> int:
        """Bytes of one set of recurrent states, which a single made-up token gives their size."""
        seam, here = self.seam, device_tier(self.seam.device)
        scratch = Context(KVStore(len(seam.layers), here, seam.recurrent_layers))
        self.read_alone(scratch, [0], Strategy.on_device(chunk_tokens=1))
        return sum(state.state_bytes for state in scratch.store.states)
