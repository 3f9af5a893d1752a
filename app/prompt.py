"""Documents and conversation to token ids, and token spans back to pages and files.

    head  documents  question 1  open  answer 1  between  question 2  open  ...

`head`, `open` and `between` are the chat template's own words, found by rendering it once around
sentinels; everything else is encoded apart. So a prompt grows only at its end (the engine reads
nothing twice), an answer keeps the very ids that were generated, and no text of a document or a
person can become one of the template's marks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.documents.document import Document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WITH_DOCUMENTS = (
    "You answer questions about the documents that the user gives. Use only what they say, and "
    "name the page or file in brackets, such as [p. 3]."
)
WITHOUT_DOCUMENTS = "You are a helpful assistant."

# Free of blanks at the ends, as some templates strip what they are given.
_QUESTION_MARK = "\u2042question\u2042"
_ANSWER_MARK = "\u2042answer\u2042"
_NEXT_MARK = "\u2042next\u2042"
_NAME_CHARACTERS = 200
# Tells small models where the documents end.
_QUESTION_PREFIX = "Question: "


@dataclass(frozen=True, slots=True)
class TokenizedDocument:
    """A document as it stands in a prompt.

    Args:
        document: what was tokenized.
        intro_ids: introduce it by name.
        section_ids: each section's ids, its mark included.
    """

    document: Document
    intro_ids: tuple[int, ...]
    section_ids: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        """Exactly what it adds to a prompt."""
        return len(self.intro_ids) + sum(len(ids) for ids in self.section_ids)


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer.

    Args:
        question: as asked.
        answer_ids: as generated, an end-of-text token included.
        answer: their text.
    """

    question: str
    answer_ids: tuple[int, ...]
    answer: str


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens `start` to `end` (exclusive) of a prompt hold the section `label` of `document`."""

    start: int
    end: int
    document: str
    label: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids ready to be read, where each page or file lies in them, and where a document or
    a turn ends: what follows may change without what is before having to be read again."""

    token_ids: tuple[int, ...]
    spans: tuple[Span, ...]
    boundaries: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Glue:
    """The template's words around what people say, as ids."""

    head: tuple[int, ...]
    open: tuple[int, ...]
    between: tuple[int, ...]


class PromptBuilder:
    """Builds prompts for one tokenizer.

    Args:
        tokenizer: of the model that will read them; with or without a chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer: Any = tokenizer
        self._marks = _template_marks(self._tokenizer)
        self._mark_ids = frozenset(self._marks)
        self._glues: dict[bool, _Glue] = {}

    def tokenize(self, document: Document) -> TokenizedDocument:
        """Encodes a document: its name once, then each section after a mark such as `[p. 12]`."""
        texts = [f"Document: {_one_line(document.name)}\n\n"]
        texts += [
            f"[{_one_line(section.label)}]\n{section.text}\n\n" for section in document.sections
        ]
        intro_ids, *section_ids = self._encode_plain(texts)
        return TokenizedDocument(document, intro_ids, tuple(section_ids))

    def build(
        self, documents: Sequence[TokenizedDocument], turns: Sequence[Turn], question: str
    ) -> Prompt:
        """The whole prompt: documents first, question last.

        It begins with every earlier prompt of the same conversation and that prompt's answer.
        """
        glue = self._glue(with_documents=bool(documents))
        ids = list(glue.head)
        spans, boundaries = [], []
        for document in documents:
            ids += document.intro_ids
            for section, section_ids in zip(
                document.document.sections, document.section_ids, strict=True
            ):
                start = len(ids)
                ids += section_ids
                spans.append(Span(start, len(ids), document.document.name, section.label))
            boundaries.append(len(ids))
        prefix = _QUESTION_PREFIX if documents else ""
        for turn in turns:
            ids += self._encode_plain([prefix + turn.question])[0]
            ids += glue.open
            ids += self._without_end_mark(turn.answer_ids)
            ids += glue.between
            boundaries.append(len(ids))
        ids += self._encode_plain([prefix + question])[0]
        ids += glue.open
        return Prompt(tuple(ids), tuple(spans), tuple(boundaries))

    def _without_end_mark(self, answer_ids: Sequence[int]) -> Sequence[int]:
        """The template puts its own end mark after an answer; two would be one too many."""
        if answer_ids and answer_ids[-1] in self._mark_ids:
            return answer_ids[:-1]
        return answer_ids

    def _encode_plain(self, texts: list[str]) -> list[tuple[int, ...]]:
        """Ids of texts in which no mark of the template means anything."""
        encoded = self._tokenizer(
            texts, add_special_tokens=False, split_special_tokens=True, verbose=False
        ).input_ids
        return [
            tuple(self._encode_broken(text)) if self._mark_ids.intersection(ids) else tuple(ids)
            for text, ids in zip(texts, encoded, strict=True)
        ]

    def _encode_broken(self, text: str) -> list[int]:
        """Some tokenizers find marks in any text: break each one after its first character."""
        mark = re.compile("|".join(re.escape(mark) for mark in self._marks.values()))
        ends = [match.start() + 1 for match in mark.finditer(text)]
        pieces = [text[i:j] for i, j in zip([0, *ends], [*ends, len(text)], strict=True)]
        ids: list[int] = []
        for piece_ids in self._tokenizer(
            pieces, add_special_tokens=False, split_special_tokens=True, verbose=False
        ).input_ids:
            ids += [token_id for token_id in piece_ids if token_id not in self._mark_ids]
        return ids

    def _glue(self, *, with_documents: bool) -> _Glue:
        if with_documents not in self._glues:
            system = WITH_DOCUMENTS if with_documents else WITHOUT_DOCUMENTS
            self._glues[with_documents] = self._find_glue(system)
        return self._glues[with_documents]

    def _find_glue(self, system: str) -> _Glue:
        if not getattr(self._tokenizer, "chat_template", None):
            return self._plain_glue(system)
        messages = [
            {"role": "user", "content": _QUESTION_MARK},
            {"role": "assistant", "content": _ANSWER_MARK},
            {"role": "user", "content": _NEXT_MARK},
        ]
        try:
            text = self._render([{"role": "system", "content": system}, *messages])
            if system not in text:
                raise ValueError("the template has no place for a system message")
        except Exception:  # noqa: BLE001
            # Templates refuse a system message each in its own way (Gemma, early Mistral).
            messages[0] = {"role": "user", "content": f"{system}\n\n{_QUESTION_MARK}"}
            text = self._render(messages)
        head, rest = text.split(_QUESTION_MARK, 1)
        _, rest = rest.split(_ANSWER_MARK, 1)
        # Only what follows the last question opens an answer: some templates write answers that
        # lie in the past differently.
        between, open_text = rest.split(_NEXT_MARK, 1)
        return _Glue(*(self._encode_glue(part) for part in (head, open_text, between)))

    def _render(self, messages: list[dict[str, str]]) -> str:
        text: str = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return text

    def _plain_glue(self, system: str) -> _Glue:
        """For models without a chat template."""
        start = self._tokenizer.bos_token_id
        adds_start = self._tokenizer("a").input_ids[:1] == [start]
        head = self._encode_glue(f"{system}\n\n")
        return _Glue(
            ((start, *head) if adds_start else head),
            self._encode_glue("\n\nAnswer:"),
            self._encode_glue("\n\n"),
        )

    def _encode_glue(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False).input_ids)


def _template_marks(tokenizer: Any) -> dict[int, str]:
    """Tokens that structure a conversation: the special ones, and others the template writes."""
    template = str(getattr(tokenizer, "chat_template", None) or "")
    return {
        token_id: str(token.content)
        for token_id, token in tokenizer.added_tokens_decoder.items()
        if (token.special or str(token.content) in template)
        and str(token.content).strip()
        and token_id != tokenizer.unk_token_id
    }


def _one_line(name: str) -> str:
    """A file's name must not write lines of its own."""
    return re.sub(r"\s+", " ", name).replace("]", ")").replace("[", "(").strip()[:_NAME_CHARACTERS]
