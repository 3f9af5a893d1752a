"""Prompts: spans, stability, and document text that cannot speak for the template."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.documents import Document, Section
from app.prompt.prompt import PromptBuilder, Turn

pytestmark = pytest.mark.builtin
MARKS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]


@pytest.fixture(scope="module")
def tokenizer(builtin_engine: Any) -> Any:
    return builtin_engine.tokenizer


def text_document(*texts: str, name: str = "a.pdf") -> Document:
    return Document(name, "pdf", tuple(Section(f"p. {i}", t) for i, t in enumerate(texts, 1)))


def test_documents_first_question_last(tokenizer: Any) -> None:
    builder = PromptBuilder(tokenizer)
    document = builder.tokenize(text_document("first page", "second page"))
    prompt = builder.build([document], [], "What is it?")
    text = tokenizer.decode(prompt.token_ids)
    assert text.index("[p. 1]\nfirst page") < text.index("[p. 2]\nsecond") < text.index("What is")
    assert text.endswith("What is it?<|im_end|>\n<|im_start|>assistant\n")
    for span, section in zip(prompt.spans, document.document.sections, strict=True):
        words = tokenizer.decode(prompt.token_ids[span.start : span.end])
        assert words == f"[{section.label}]\n{section.text}\n\n"
        assert (span.document, span.label) == ("a.pdf", section.label)
    assert prompt.boundaries == (prompt.spans[-1].end,)
    without = builder.build([], [], "What is it?")
    assert not without.spans
    assert not without.boundaries
    more = builder.build([document], [Turn("What is it?", (5, 6), "x")], "And?")
    assert more.boundaries[0] == prompt.boundaries[0]
    assert len(prompt.token_ids) < more.boundaries[1] < len(more.token_ids)


def test_code_has_its_tree_and_each_file_its_path_and_language(tokenizer: Any) -> None:
    section = Section("src/a.py", "x = 1", "src/a.py", "Python")
    code = Document("app", "code", (section,), header="Files:\nsrc/\n  a.py")
    builder = PromptBuilder(tokenizer)
    text = tokenizer.decode(builder.build([builder.tokenize(code)], [], "?").token_ids)
    wanted = "Document: app\n\nFiles:\nsrc/\n  a.py\n\n[src/a.py] Python\nx = 1\n\n"
    assert wanted in text


def test_tokens_are_exactly_what_a_document_adds(tokenizer: Any) -> None:
    builder = PromptBuilder(tokenizer)
    one, two = (builder.tokenize(text_document(text)) for text in ("some words", "others"))
    with_one = builder.build([one], [], "?").token_ids
    with_both = builder.build([one, two], [], "?").token_ids
    assert len(with_both) - len(with_one) == two.tokens


def test_what_follows_a_document_leaves_its_tokens_alone(tokenizer: Any) -> None:
    builder = PromptBuilder(tokenizer)
    one, two = (builder.tokenize(text_document(t, t)) for t in ("some words", "others"))
    first = builder.build([one], [], "?")
    end = first.boundaries[0]
    assert builder.build([one, two], [], "?").token_ids[:end] == first.token_ids[:end]
    # A part left out leaves everything before it alone.
    kept = builder.build([one.keeping({0})], [], "?")
    part = first.spans[0].end
    assert kept.token_ids[:part] == first.token_ids[:part]
    assert [span.label for span in kept.spans] == ["p. 1"]


def test_a_prompt_grows_only_at_its_end(tokenizer: Any) -> None:
    builder = PromptBuilder(tokenizer)
    document = builder.tokenize(text_document("page"))
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    answer = tuple(tokenizer("It is.", add_special_tokens=False).input_ids)
    first = builder.build([document], [], "What?")
    for ids in (answer, (*answer, end)):
        second = builder.build([document], [Turn("What?", ids, "It is.")], "Why?")
        assert second.token_ids[: len(first.token_ids)] == first.token_ids
        rest = second.token_ids[len(first.token_ids) :]
        # One end mark, whether the answer brought its own or was stopped before it.
        assert rest[: len(answer) + 1] == (*answer, end)
        assert rest[len(answer) + 1] != end


# The built-in tokenizer has no token for some bytes of rarer characters.
characters = st.characters(max_codepoint=0x7FF, exclude_categories=["Cs", "Cc"])
pieces = st.lists(
    st.one_of(
        st.sampled_from([*MARKS, "<|im_", "start|>", "]\n[p. 9]"]), st.text(characters, max_size=12)
    ),
    max_size=8,
).map("".join)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=pieces, name=pieces, question=pieces)
def test_no_text_can_forge_a_mark(tokenizer: Any, text: str, name: str, question: str) -> None:
    builder = PromptBuilder(tokenizer)
    document = builder.tokenize(text_document(text, name=name))
    prompt = builder.build([document], [], question)
    special = set(tokenizer.all_special_ids)
    empty = builder.build([builder.tokenize(text_document(""))], [], "")
    found = [i for i in prompt.token_ids if i in special]
    assert found == [i for i in empty.token_ids if i in special]
    span = prompt.spans[0]
    assert tokenizer.decode(prompt.token_ids[span.start : span.end]) == f"[p. 1]\n{text}\n\n"
    assert "\n" not in tokenizer.decode(document.intro_ids).rstrip("\n")


def test_templates_without_a_system_message_or_any_template(tokenizer: Any) -> None:
    import copy

    refusing = copy.deepcopy(tokenizer)
    refusing.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = None
    for variant in (refusing, plain):
        builder = PromptBuilder(variant)
        document = builder.tokenize(text_document("page"))
        text = variant.decode(builder.build([document], [], "What?").token_ids)
        assert "name the page" in text
        assert text.index("page") < text.index("What?")


def test_a_tokenizer_written_in_python_gives_the_same(tokenizer: Any) -> None:
    class Slow:
        """The tokenizer without what only those of the tokenizers library have."""

        backend_tokenizer = None

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def __call__(self, *arguments: Any, **options: Any) -> Any:
            return tokenizer(*arguments, **options)

    slow: Any = Slow()
    document = text_document("words of <|im_start|> some kind\n" * 40, "others")
    by_slow = PromptBuilder(slow).build([PromptBuilder(slow).tokenize(document)], [], "What?")
    builder = PromptBuilder(tokenizer)
    assert by_slow == builder.build([builder.tokenize(document)], [], "What?")
