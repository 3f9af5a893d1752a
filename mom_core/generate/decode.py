"""Decode: token after token through the model's own forward, on the segments of the store.

Keys and values on the host are attended to there, by the CPU: the query travels to them (a few
kB) and the partial result back, instead of gigabytes of KV to the device each token.

Source: ours (segment attention); the paper brings the KV back to the GPU instead.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from torch import Tensor
from transformers import Cache

from mom_core.events import FinishReason, Token
from mom_core.generate.detokenize import StreamDetokenizer
from mom_core.generate.lookup import PromptLookup
from mom_core.generate.sampling import Sampler
from mom_core.kv.store import KVStore
from mom_core.model.seam.decoder import HFSeam


@dataclass(slots=True)
class Steps:
    """How often the model was run for an answer."""

    count: int = 0


def decode(
    seam: HFSeam,
    store: KVStore,
    cache: Cache,
    context_ids: list[int],
    logits: Tensor,
    *,
    new_ids: list[int],
    max_new_tokens: int,
    read_limit: int | None,
    eos_ids: frozenset[int],
    sampler: Sampler,
    lookup: PromptLookup | None,
    detokenizer: StreamDetokenizer,
    steps: Steps,
) -> Generator[Token, None, FinishReason | None]:
    """Generates tokens after those in the store.

    Args:
        seam: the model.
        store: holds the prompt; every token that is run through the model is appended.
        cache: transformers' view of the store.
        context_ids: ids of the tokens in the store; appended to in step with it, so that both
            agree at every yield.
        logits: the first new token's, `[V]`, fp32.
        new_ids: ids of the answer so far; appended to before each yield.
        max_new_tokens: length of the whole answer at most, more than there is so far.
        read_limit: the tokens the store may come to hold; None for no limit.
        eos_ids: tokens that end the answer.
        sampler: how tokens are chosen.
        lookup: offers drafts, so that one step may give several tokens; None for none.
        detokenizer: for the text of the events.
        steps: counts the runs of the model.

    Yields:
        One `Token` a new token, the one that ends the answer included.

    Returns:
        Why the answer ended; None if it goes on, but its last token may not be read here.
    """
    step = seam.stepper(cache)
    mark = sampler.mark()
    try:
        chosen = [sampler.choose(logits)]
    except BaseException:
        sampler.rewind(mark)
        raise
    while True:
        for token_id in chosen:
            is_end = token_id in eos_ids
            index = len(new_ids)
            is_last = is_end or index + 1 == max_new_tokens
            text = "" if is_end else detokenizer.push(token_id)
            if is_last:
                text += detokenizer.flush()
            new_ids.append(token_id)
            yield Token(token_id=token_id, text=text, index=index)
            if is_last:
                return "stop" if is_end else "length"
        position, last = len(context_ids), chosen[-1]
        if position == read_limit:
            return None
        draft: list[int] = []
        # A draft of n tokens gives at most n + 1.
        most = max_new_tokens - len(new_ids) - 1
        if read_limit is not None:
            most = min(most, read_limit - position - 1)
        if lookup is not None and most > 0:
            draft = lookup.draft(context_ids, last, most)
        chosen = _run(step, store, context_ids, [last, *draft], sampler, eos_ids)
        steps.count += 1
        if lookup is not None and draft:
            lookup.learn(len(chosen) - 1)


def _run(
    step: Callable[[Sequence[int], int], Tensor],
    store: KVStore,
    context_ids: list[int],
    token_ids: list[int],
    sampler: Sampler,
    eos_ids: frozenset[int],
) -> list[int]:
    """Runs a token and a draft through the model, and keeps what the sampler would have said.

    If it fails, store and ids agree all the same, and nothing was chosen.

    Args:
        token_ids: the token that was chosen last, and the draft.

    Returns:
        The tokens chosen: those of the draft that are kept, and one more.
    """
    position = len(context_ids)
    chosen: list[int] = []
    mark = sampler.mark()
    try:
        store.settle_states()
        rows = step(token_ids, position)
        for row, logits in enumerate(rows):
            chosen.append(sampler.choose(logits))
            is_kept = row + 1 < len(token_ids) and chosen[row] == token_ids[row + 1]
            if not is_kept or chosen[row] in eos_ids:
                break
    except BaseException:
        del context_ids[store.roll_back(position) :]
        sampler.rewind(mark)
        raise
    kept = position + len(chosen)
    if len(chosen) < len(token_ids):
        store.crop(kept)
    store.advance_states(kept)
    context_ids += token_ids[: len(chosen)]
    return chosen
