"""What the peers read and are asked: real text that does not repeat itself, as token ids.

The text is the sample documents and then modules of Python's standard library, each once. Every
peer gets the same ids, made here once.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROOT = Path(__file__).parents[1]
# Prose first, so that passages to be quoted can be taken from it.
_GUIDE = ROOT / "assets" / "samples" / "beekeeping-guide.md"
_CODE = ROOT / "assets" / "samples" / "tidebell" / "tidebell"
_MODULES = (
    "textwrap.py",
    "shlex.py",
    "heapq.py",
    "csv.py",
    "calendar.py",
    "fractions.py",
    "statistics.py",
    "zipfile/__init__.py",
    "zipfile.py",
    "tarfile.py",
    "argparse.py",
    "typing.py",
    "inspect.py",
)
_SHORT_TOKENS = 1000
_WARM_TOKENS = 300
_PASSAGES = 3
_QUOTE_TOKENS = 96
# So that a small model begins to quote, and goes on by itself.
_GIVEN_TOKENS = 16


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Token ids of one measurement, for every peer alike.

    Args:
        warm_ids: read before anything is measured.
        short_ids: the first 1,000 tokens, or all if the document has fewer.
        prompt_ids: a document and a question, as long as the suite wants.
        follow_up_ids: what is asked after the first answer.
        quote_ids: prompts of the same length over the same document, each asking to repeat a
            passage of it word for word, with the beginning of the answer.
        quoted_ids: what the rest of each answer should be.
        new_tokens: tokens per answer.
        quote_tokens: tokens per answer that quotes.
        threads: that a peer may use.
    """

    warm_ids: list[int]
    short_ids: list[int]
    prompt_ids: list[int]
    follow_up_ids: list[int]
    quote_ids: list[list[int]]
    quoted_ids: list[list[int]]
    new_tokens: int
    quote_tokens: int
    threads: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def distinct_text() -> str:
    """The sample documents and modules of the standard library, each once."""
    library = Path(sysconfig.get_path("stdlib"))
    paths = [_GUIDE, *sorted(_CODE.glob("*.py")), *(library / name for name in _MODULES)]
    return "\n\n".join(path.read_text() for path in paths if path.is_file())


def make_workload(
    tokenizer: PreTrainedTokenizerBase, *, tokens: int, new_tokens: int, threads: int
) -> Workload:
    """Builds a workload around a document so long that each prompt has exactly `tokens` tokens.

    Args:
        tokenizer: the model's, with the chat marks of the built-in one.
        tokens: length of each prompt.
        new_tokens: tokens per answer.
        threads: that a peer may use.

    Raises:
        ValueError: there is not so much distinct text, or the prompt is too short for a passage.
    """

    def ids(text: str) -> list[int]:
        encoded: list[int] = tokenizer(text, verbose=False, add_special_tokens=False).input_ids
        return encoded

    text_ids = ids(distinct_text())
    if tokens > len(text_ids):
        raise ValueError(f"{tokens} tokens wanted; the distinct text has {len(text_ids)}")
    head = ids("<|im_start|>user\n")

    def prompt(request: str, most: int = tokens, answer_begins: Sequence[int] = ()) -> list[int]:
        end = [*ids(f"\n\n{request}<|im_end|>\n<|im_start|>assistant\n"), *answer_begins]
        document = most - len(head) - len(end)
        if document < 0:
            raise ValueError(f"{most} tokens are too few for the request {request[:40]!r}")
        return [*head, *text_ids[:document], *end]

    question = "Question: What should a member of the apiary do in April?"
    passages = [ids(passage) for passage in _passages()]
    quotes = [
        prompt(
            f"Repeat this passage word for word, and nothing else:\n\n{text}",
            answer_begins=passage[:_GIVEN_TOKENS],
        )
        for text, passage in zip(_passages(), passages, strict=True)
    ]
    quoted = [passage[_GIVEN_TOKENS:] for passage in passages]
    return Workload(
        warm_ids=prompt(question, min(_WARM_TOKENS, tokens)),
        short_ids=prompt(question, min(_SHORT_TOKENS, tokens)),
        prompt_ids=prompt(question),
        follow_up_ids=ids(
            "<|im_end|>\n<|im_start|>user\nQuestion: How heavy is an eight-frame box full of "
            "honey, and why does that matter?<|im_end|>\n<|im_start|>assistant\n"
        ),
        quote_ids=quotes,
        new_tokens=new_tokens,
        # An answer that goes on after the passage no longer quotes.
        quote_tokens=min(_QUOTE_TOKENS, *map(len, quoted)),
        quoted_ids=quoted,
        threads=threads,
    )


def _passages() -> list[str]:
    """The longest sections of the guide, without their headings."""
    sections = _GUIDE.read_text().split("\n## ")[1:]
    bodies = [section.partition("\n")[2].strip() for section in sections]
    return sorted(bodies, key=len, reverse=True)[:_PASSAGES]
