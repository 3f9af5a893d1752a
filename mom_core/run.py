"""One run: a prompt decided once, read into its context, and answered.

Source: ours.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from mom_core.config import SamplingConfig
from mom_core.context import Context
from mom_core.events import Adapted, PrefillProgress, ReadingEvent
from mom_core.forecast.forecast import RunForecast
from mom_core.generate.answer import Answer
from mom_core.generate.checkpoint import CheckpointWriter
from mom_core.generate.detokenize import StreamDetokenizer
from mom_core.generate.sampling import Sampler
from mom_core.placement import Placement
from mom_core.reader import Reader
from mom_core.strategy import Strategy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(slots=True)
class Run:
    """A run that has been decided; its context is cropped and in its place.

    Args:
        placement: where things lie.
        reader: reads prompts.
        context: will hold the prompt.
        prompt_ids: the whole prompt.
        forecast: the decision.
        strategy: the settings that follow from it.
        longest_answer: the most new tokens.
        reused_tokens: tokens of the prompt that need not be read.
        adapted: what had to change to bring the context to its place.

    Attributes:
        resumed_fraction: share of the reading's work that an interrupted one had already done.
    """

    placement: Placement
    reader: Reader
    context: Context
    prompt_ids: Sequence[int]
    forecast: RunForecast
    strategy: Strategy
    longest_answer: int
    reused_tokens: int
    adapted: list[Adapted]
    resumed_fraction: float = 0.0

    def read(
        self, boundaries: Sequence[int] = (), checkpoints: CheckpointWriter | None = None
    ) -> Generator[ReadingEvent, None, Tensor]:
        """Reads the prompt; see `Engine.generate`.

        Returns:
            The next token's logits `[V]`, fp32.
        """
        reading = self.reader.read(
            self.context,
            self.prompt_ids,
            self.strategy,
            boundaries=boundaries,
            checkpoints=checkpoints,
        )
        while True:
            try:
                event = next(reading)
            except StopIteration as end:
                logits: Tensor = end.value
                break
            if isinstance(event, PrefillProgress):
                self.resumed_fraction = max(self.resumed_fraction, event.resumed_fraction)
            yield event
        if checkpoints is not None:
            checkpoints.done(self.context.ids, self.context.store, logits)
        return logits

    def answer(
        self,
        sampling: SamplingConfig,
        tokenizer: PreTrainedTokenizerBase | None,
        eos_ids: frozenset[int],
    ) -> Answer:
        """The answer to come.

        Args:
            sampling: how tokens are chosen.
            tokenizer: for the text of the events; None for ids only.
            eos_ids: tokens that end the answer.
        """
        context, reader, placement = self.context, self.reader, self.placement
        return Answer(
            seam=reader.seam,
            context=context,
            max_new_tokens=self.longest_answer,
            sampler=Sampler(sampling, context.ids),
            detokenizer=StreamDetokenizer(tokenizer),
            # A recurrent state cannot go back over the rejected part of a draft.
            lookup=(
                None
                if placement.config.lookup == "off" or reader.seam.recurrent_layers
                else context.lookup
            ),
            eos_ids=eos_ids,
            tiers=tuple(placement.tiers.values()),
            decode_mode=lambda store: placement.decode_mode(self.strategy, store),
            read_limit=lambda: reader.rope_limit_after(context.tokens),
            read_again=lambda ids: reader.append(
                context, ids, self.strategy.with_kv(context.store.tier.name)
            ),
            working=reader.working,
        )


def begin(
    placement: Placement,
    reader: Reader,
    context: Context,
    prompt_ids: Sequence[int],
    *,
    max_new_tokens: int,
    forecast: RunForecast | None,
    stays: bool,
) -> Run:
    """Decides a run once, and brings its context to the tier where it belongs.

    Args:
        placement: where things lie.
        reader: reads prompts.
        context: is cropped to what it shares with the prompt.
        prompt_ids: the whole prompt.
        max_new_tokens: the longest answer that was asked for.
        forecast: the decision, if it was already made for this prompt.
        stays: whether keys and values stay on the context's tier.

    Raises:
        ContextTooLong: the prompt exceeds the model's window.
        InvalidSetting: no tokens, or an id outside the vocabulary.
        OutOfMemory: there is no room.
    """
    reader.check(prompt_ids)
    reused = reader.crop(context, prompt_ids)
    # The last token of an answer is never read, so it needs no place in the window.
    longest_answer = min(max_new_tokens, placement.window_tokens - len(prompt_ids) + 1)
    if forecast is None:
        forecast = placement.forecast_run(
            context,
            prompt_tokens=len(prompt_ids),
            reused_tokens=reused,
            new_tokens=longest_answer,
            stays=stays,
        )
    strategy, adapted = placement.accept(forecast), list[Adapted]()
    if not stays:
        context, adapted = placement.settle(context, strategy.kv)
    return Run(
        placement,
        reader,
        context,
        prompt_ids,
        forecast,
        strategy.with_kv(context.store.tier.name),
        longest_answer,
        reused,
        adapted,
    )
