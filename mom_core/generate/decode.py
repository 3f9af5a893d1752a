"""Decode: one token after another through the model's own forward, on the segments of the store.

Keys and values on the host are attended to there, by the CPU: the query travels to them (a few
kB) and the partial result back, instead of gigabytes of KV to the device each token.

Source: ours (segment attention); the paper brings the KV back to the GPU instead.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from torch import Tensor
from transformers.cache_utils import Cache

from mom_core.events import FinishReason, Token
from mom_core.generate.detokenize import StreamDetokenizer
from mom_core.generate.sampling import Sampler
from mom_core.kv.store import KVStore
from mom_core.model.hf_seam import HFSeam


def decode(
    seam: HFSeam,
    store: KVStore,
    cache: Cache,
    context_ids: list[int],
    logits: Tensor,
    *,
    first_index: int,
    max_new_tokens: int,
    read_limit: int | None,
    eos_ids: frozenset[int],
    sampler: Sampler,
    detokenizer: StreamDetokenizer,
) -> Generator[Token, None, FinishReason | None]:
    """Generates tokens after those in the store.

    Args:
        seam: the model.
        store: holds the prompt; every token that is run through the model is appended.
        cache: transformers' view of the store.
        context_ids: ids of the tokens in the store; appended to in step with it, so that both
            agree at every yield.
        logits: of the first new token, `[V]`, fp32.
        first_index: of that token in the answer.
        max_new_tokens: of the whole answer, more than `first_index`.
        read_limit: the tokens the store may come to hold; None for no limit.
        eos_ids: tokens that end the answer.
        sampler: how tokens are chosen.
        detokenizer: for the text of the events.

    Yields:
        One `Token` a new token, the one that ends the answer included.

    Returns:
        Why the answer ended; None if it goes on, but its last token may not be read here.
    """
    step = seam.stepper(cache)
    for index in range(first_index, max_new_tokens):
        token_id = sampler.choose(logits)
        is_end = token_id in eos_ids
        is_last = is_end or index + 1 == max_new_tokens
        text = "" if is_end else detokenizer.push(token_id)
        if is_last:
            text += detokenizer.flush()
        yield Token(token_id=token_id, text=text, index=index)
        if is_end:
            return "stop"
        if is_last:
            return "length"
        if len(context_ids) == read_limit:
            return None
        logits = _append(step, store, context_ids, token_id)
    return "length"


def _append(
    step: Callable[[int, int], Tensor], store: KVStore, context_ids: list[int], token_id: int
) -> Tensor:
    """One token through the model; if that fails, store and ids agree all the same."""
    position = len(context_ids)
    try:
        logits = step(token_id, position)
    except BaseException:
        del context_ids[store.roll_back(position) :]
        raise
    context_ids.append(token_id)
    store.advance_states(position + 1)
    return logits
