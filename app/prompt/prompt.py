"""Documents and conversation to token ids, and token spans back to pages and files.

    head  documents  question 1  open  answer 1  between  question 2  open  ...

`head`, `open` and `between` are the chat template's own words, found by rendering it once around
sentinels; everything else is encoded apart. So a prompt grows only at its end (the engine reads
nothing twice), an answer keeps the very ids that were generated, and no text of a document or a
person can become one of the template's marks.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from app.documents.cache import DiskCache
from app.documents.document import Chapter, Document, Section
from app.documents.secrets import holds_secret, is_secret
from app.prompt.text_encoder import TextEncoder

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
        intro_ids: introduce it by name, with its header.
        section_ids: each section's ids, its mark included.
    """

    document: Document
    intro_ids: Sequence[int]
    section_ids: Sequence[Sequence[int]]

    @property
    def tokens(self) -> int:
        """Exactly what it adds to a prompt."""
        return len(self.intro_ids) + sum(len(ids) for ids in self.section_ids)

    def keeping(self, chosen: Collection[int]) -> TokenizedDocument:
        """The document with some of its sections only; what precedes the first that is missing
        stays as it was, token by token.

        Args:
            chosen: numbers of sections, from 0.
        """
        kept = [number for number in range(len(self.section_ids)) if number in chosen]
        places = {number: place for place, number in enumerate(kept)}
        document = replace(
            self.document,
            sections=tuple(self.document.sections[number] for number in kept),
            chapters=tuple(
                Chapter(chapter.title, chapter.level, places[chapter.unit])
                for chapter in self.document.chapters
                if chapter.unit in places
            ),
        )
        return TokenizedDocument(
            document, self.intro_ids, [self.section_ids[number] for number in kept]
        )


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
class Frame:
    """A prompt without its documents: the ids before them, and those after them.

    Its size is known before the documents are put in, so nothing is built twice to make them fit.

    Args:
        head_ids: the template's opening and the system prompt.
        tail_ids: the conversation so far, the question, and the opening of the answer.
        turn_ends: where each turn of the conversation ends, as positions in `tail_ids`.
    """

    head_ids: tuple[int, ...]
    tail_ids: tuple[int, ...]
    turn_ends: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens of the prompt that are not of documents."""
        return len(self.head_ids) + len(self.tail_ids)

    def around(self, documents: Sequence[TokenizedDocument]) -> Prompt:
        """The whole prompt, with these documents in their order."""
        ids = list(self.head_ids)
        spans, boundaries = list[Span](), list[int]()
        for document in documents:
            ids += document.intro_ids
            for section, section_ids in zip(
                document.document.sections, document.section_ids, strict=True
            ):
                start = len(ids)
                ids += section_ids
                spans.append(Span(start, len(ids), document.document.name, section.label))
            boundaries.append(len(ids))
        boundaries += [len(ids) + end for end in self.turn_ends]
        ids += self.tail_ids
        return Prompt(tuple(ids), tuple(spans), tuple(boundaries))


@dataclass(frozen=True, slots=True)
class _Glue:
    """The template's words around what people say, as ids."""

    head: tuple[int, ...]
    open: tuple[int, ...]
    between: tuple[int, ...]


class PromptBuilder:
    """Builds prompts for one tokenizer.

    Args:
        tokenizer: belongs to the model that will read them; with or without a chat template.
        cache: where the ids of documents are kept between runs; None keeps nothing.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, cache: DiskCache | None = None) -> None:
        self._tokenizer: Any = tokenizer
        marks = template_marks(
            self._tokenizer.added_tokens_decoder,
            str(getattr(self._tokenizer, "chat_template", None) or ""),
            self._tokenizer.unk_token_id,
        )
        self._mark_ids = frozenset(marks)
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        self._encoder = (
            TextEncoder(self._encode_pieces, marks)
            if backend is None
            else TextEncoder.of_backend(backend, marks, cache)
        )
        self._glues: dict[str, _Glue] = {}

    def tokenize(self, document: Document) -> TokenizedDocument:
        """Encodes a document: its name once, then each section after a mark such as `[p. 12]`."""
        return tokenize(document, self._encoder)

    def reencode(self, turn: Turn) -> Turn:
        """A turn whose answer came from another tokenizer, with ids of this one."""
        return Turn(turn.question, tuple(self._encoder.encode([turn.answer])[0]), turn.answer)

    def build(
        self,
        documents: Sequence[TokenizedDocument],
        turns: Sequence[Turn],
        question: str,
        system: str = "",
    ) -> Prompt:
        """The whole prompt: documents first, question last.

        It begins with every earlier prompt of the same conversation and that prompt's answer.

        Args:
            documents: in their order.
            turns: the conversation so far, with ids of this tokenizer.
            question: the last one.
            system: the system prompt; "" for the one that asks for pages.
        """
        frame = self.frame(turns, question, system, has_documents=bool(documents))
        return frame.around(documents)

    def frame(
        self,
        turns: Sequence[Turn],
        question: str,
        system: str = "",
        *,
        has_documents: bool,
    ) -> Frame:
        """All of the prompt but its documents; see `build`.

        Args:
            turns: the conversation so far, with ids of this tokenizer.
            question: the last question.
            system: the system prompt; "" for the one that fits.
            has_documents: whether documents will be put in.
        """
        glue = self._glue(
            system.strip() or (WITH_DOCUMENTS if has_documents else WITHOUT_DOCUMENTS)
        )
        prefix = _QUESTION_PREFIX if has_documents else ""
        ids, turn_ends = list[int](), list[int]()
        for turn in turns:
            ids += self._encoder.encode([prefix + turn.question])[0]
            ids += glue.open
            ids += self._without_end_mark(turn.answer_ids)
            ids += glue.between
            turn_ends.append(len(ids))
        ids += self._encoder.encode([prefix + question])[0]
        ids += glue.open
        return Frame(glue.head, tuple(ids), tuple(turn_ends))

    def _without_end_mark(self, answer_ids: Sequence[int]) -> Sequence[int]:
        """The template puts its own end mark after an answer; two would be one too many."""
        if answer_ids and answer_ids[-1] in self._mark_ids:
            return answer_ids[:-1]
        return answer_ids

    def _encode_pieces(self, pieces: list[str]) -> list[list[int]]:
        """For tokenizers written in Python."""
        ids: list[list[int]] = self._tokenizer(
            pieces, add_special_tokens=False, split_special_tokens=True, verbose=False
        ).input_ids
        return ids

    def _glue(self, system: str) -> _Glue:
        if system not in self._glues:
            self._glues[system] = self._find_glue(system)
        return self._glues[system]

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


def tokenize(document: Document, encoder: TextEncoder) -> TokenizedDocument:
    """Encodes a document: marks and texts apart, so that texts keep their ids under any name."""
    intro = f"Document: {shown_label(document.name)}\n\n"
    if document.header:
        intro += f"{document.header}\n\n"
    marks = [_mark(section) for section in document.sections]
    # Many marks are alike but for a number: encoding them costs next to nothing.
    intro_ids, *mark_ids = encoder.encode([intro, *marks])
    # Ids are as good as the text: those of secrets are not kept between runs.
    encode = encoder.encode if holds_secret(document) else encoder.encode_known
    text_ids = encode([f"{section.text}\n\n" for section in document.sections])
    section_ids = [mark + text for mark, text in zip(mark_ids, text_ids, strict=True)]
    return TokenizedDocument(_count_left_out(document, encoder), intro_ids, section_ids)


def _count_left_out(document: Document, encoder: TextEncoder) -> Document:
    """What it would cost to put files back; their texts have served then."""
    counted = [one for one in document.left_out if one.text is not None]
    texts = [
        str(one.text) if one.path.endswith("/") else f"[{one.path}]\n{one.text}\n\n"
        for one in counted
    ]
    encode = encoder.encode if any(map(is_secret, counted)) else encoder.encode_known
    counts = iter(encode(texts))
    left_out = tuple(
        one if one.text is None else replace(one, text=None, tokens=len(next(counts)))
        for one in document.left_out
    )
    return replace(document, left_out=left_out)


def template_marks(
    added_tokens: dict[int, Any], chat_template: str, unknown_id: int | None
) -> dict[int, str]:
    """Tokens that structure a conversation: the special ones, and others the template writes.

    Args:
        added_tokens: the tokenizer's, by id.
        chat_template: the model's, "" if it has none.
        unknown_id: the token for unknown characters, which is no mark.
    """
    return {
        token_id: str(token.content)
        for token_id, token in added_tokens.items()
        if (token.special or str(token.content) in chat_template)
        and str(token.content).strip()
        and token_id != unknown_id
    }


def _mark(section: Section) -> str:
    """ "[p. 12]", "[src/main.py] Python"."""
    language = f" {section.language}" if section.language else ""
    return f"[{shown_label(section.label)}]{language}\n"


def shown_label(name: str) -> str:
    """A name as the model sees it: it must not write lines or marks of its own."""
    return re.sub(r"\s+", " ", name).replace("]", ")").replace("[", "(").strip()[:_NAME_CHARACTERS]
