"""The exactness receipt: a slice of tokens through plain transformers and through us.

Source: ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mom_core.context import Context
from mom_core.errors import InvalidSetting, UnsupportedModel
from mom_core.model.seam.decoder import HFSeam
from mom_core.model.seam.plain import plain_next_logits
from mom_core.reader import Reader
from mom_core.strategy import Strategy

# Configurations of these types have a place in the tests, so a loaded model of theirs is not
# tried again. tests/equivalence/models.py has a family for each.
TESTED_MODEL_TYPES = frozenset(
    {
        "cohere2",
        "gemma2",
        "gemma3_text",
        "glm4",
        "gpt_oss",
        "granite",
        "lfm2",
        "llama",
        "ministral3",
        "mistral",
        "mixtral",
        "olmo2",
        "phi3",
        "qwen2",
        "qwen3",
        "qwen3_5_text",
        "qwen3_moe",
        "qwen3_next",
        "smollm3",
        "starcoder2",
    }
)
# Largest difference of logits, relative to the largest of them. In half precision two right ways
# to compute differ by what rounding leaves; a wrong one differs by far more than this.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
_HALF_TOLERANCE = 0.05
_MADE_UP_TOKENS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactnessReceipt:
    """What plain transformers and the engine say after the same tokens.

    Args:
        tokens: that were read.
        plain_top: id of the likeliest next token by plain transformers.
        our_top: by the engine, read in mini-sequences.
        largest_difference: between logits, relative to the largest one: the worse of reading
            all in mini-sequences and of decoding the last token.
        tolerance: the largest difference that counts as equal in the model's dtype.
    """

    tokens: int
    plain_top: int
    our_top: int
    largest_difference: float
    tolerance: float

    @property
    def is_exact(self) -> bool:
        """Whether the two agree. NaN does not."""
        return self.largest_difference <= self.tolerance

    def __str__(self) -> str:
        verdict = "exact" if self.is_exact else "NOT exact"
        return (
            f"{verdict}: after {self.tokens} tokens the logits differ by at most "
            f"{self.largest_difference:.1e} of the largest (allowed {self.tolerance:.0e}); "
            f"next token {self.plain_top} by transformers, {self.our_top} by mom-chat"
        )


def made_up_tokens(vocabulary_size: int) -> list[int]:
    """A short prompt of random ids, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, vocabulary_size, (_MADE_UP_TOKENS,), generator=generator).tolist()


def receipt(plain: Tensor, ours: list[Tensor], tokens: int, dtype: torch.dtype) -> ExactnessReceipt:
    """Compares logits `[V]`.

    Args:
        plain: plain transformers' logits.
        ours: the engine's logits, by each of its ways.
        tokens: that were read.
        dtype: the model's.
    """
    truth = plain.float().cpu()
    differences = [float((way.cpu() - truth).abs().max() / truth.abs().max()) for way in ours]
    return ExactnessReceipt(
        tokens=tokens,
        plain_top=int(truth.argmax()),
        our_top=int(ours[0].argmax()),
        # max() would pass over a NaN.
        largest_difference=float(torch.tensor(differences).max()),
        tolerance=_TOLERANCE.get(dtype, _HALF_TOLERANCE),
    )


def refuse_unless_exact(verify: Callable[[], ExactnessReceipt], name: str, kind: str) -> None:
    """A family without a test of its own is tried; it never answers wrongly.

    Args:
        verify: runs the model both ways.
        name: the model's.
        kind: its family, in transformers' words.

    Raises:
        UnsupportedModel: it cannot be run, or not exactly.
    """
    try:
        found = verify()
    except UnsupportedModel:
        raise
    except Exception as error:
        # Whatever a foreign model does when it is run in parts, it ends in a sentence.
        raise UnsupportedModel(
            f"{name} is of a kind ({kind}) that mom-chat has no test for, and reading a short "
            f"made-up prompt in parts failed: {type(error).__name__}: {error}. Use a model of a "
            "tested family (see the README)."
        ) from error
    if not found.is_exact:
        raise UnsupportedModel(
            f"{name} is of a kind ({kind}) that mom-chat has no test for, and on a short made-up "
            f"prompt it is {found}. Use a model of a tested family (see the README)."
        )


def verify(
    seam: HFSeam, reader: Reader, context: Context, token_ids: list[int]
) -> ExactnessReceipt:
    """Reads tokens both ways.

    Args:
        seam: the model.
        reader: the engine's.
        context: an empty one.
        token_ids: at least two.

    Raises:
        ContextTooLong: more tokens than the model's window.
        InvalidSetting: fewer than two tokens, or an id outside the vocabulary.
    """
    reader.check(token_ids)
    if len(token_ids) < 2:
        raise InvalidSetting("verify got 1 token; give it at least two.")
    whole, but_last = len(token_ids), len(token_ids) - 1
    strategy = Strategy.on_device(chunk_tokens=max(1, whole // 3))
    strategy = strategy.with_kv(context.store.tier.name)
    ways = [reader.read_alone(context, token_ids, strategy)]
    if reader.rope_limit_after(whole) == reader.rope_limit_after(but_last):
        reader.read_alone(context, token_ids[:-1], strategy)
        ways.append(seam.stepper(context.cache)(token_ids[-1:], but_last)[0])
    with seam.whole_model():
        plain = plain_next_logits(seam.model, token_ids)
    return receipt(plain, ways, whole, seam.dtype)
