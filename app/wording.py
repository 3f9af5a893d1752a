"""The page's sentences that depend on a figure or on what happened, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mom_core.events import Adapted, Finished, PrefillProgress
from mom_core.sizes import size_text

if TYPE_CHECKING:
    from pathlib import Path

    from app.citations import Citation
    from app.documents import Health, LeftOut

# Measured over less time than this, a speed means little.
_SPEED_FROM_SECONDS = 2.0

WAITING = "Waiting for the model …"
LOADING = "Loading the model …"
NO_DEVICE = "No GPU: running on the CPU"
EDIT = "Edit"
COPY = "Copy"
AGAIN = "Answer again"
EMPTY_QUESTION = "Type a question first."
BUSY_MODEL = "The model is busy. Wait until it is done, or stop it, before you change models."
BUSY = "The model is still working on the last question. Wait, or press Stop."


def library_is_gone(folder: Path) -> str:
    """Says what to do when the library's folder has disappeared."""
    return (
        f"The library folder {folder} is gone: it was deleted, or its disk was removed. Bring it "
        "back, or restart mom-chat to create a new one."
    )


def in_line(position: int) -> str:
    """Says how many questions must finish first.

    Args:
        position: questions ahead of this one, from 1.
    """
    ahead = "one question is" if position == 1 else f"{position} questions are"
    return f"Waiting in line: {ahead} ahead of this one."


def size(size_bytes: int) -> str:
    """Bytes as GiB with two decimals: "6.25 GiB"."""
    return f"{size_bytes / 2**30:.2f} GiB"


def on_disk(size_bytes: int) -> str:
    """The line under a gauge: what lies in files."""
    return f"{size(size_bytes)} in files on disk"


def duration(seconds: float) -> str:
    """Seconds, rounded: "8 s", "3 min 20 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def reading(event: PrefillProgress) -> str:
    """The line under the progress bar while the prompt is read."""
    new = event.prompt_tokens - event.reused_tokens
    reused = f" ({event.reused_tokens:,} more reused)" if event.reused_tokens else ""
    left = "" if event.eta_seconds is None else f", about {duration(event.eta_seconds)} left"
    speed = ""
    if event.elapsed_seconds >= _SPEED_FROM_SECONDS:
        speed = f", {event.fraction * new / event.elapsed_seconds:,.0f} tokens/s"
    return (
        f"Reading {new:,} tokens{reused}: {event.fraction:.0%}, "
        f"layer {min(event.layer + 1, event.layers)} of {event.layers}{speed}{left}"
    )


def answering(tokens: int) -> str:
    """The line under the progress bar while the answer is written."""
    return f"Answering: {tokens:,} {'token' if tokens == 1 else 'tokens'}"


def figures(event: Finished) -> str:
    """The line under a finished answer: how fast it was read and written."""
    new = event.prompt_tokens - event.reused_tokens
    reused = f", reused {event.reused_tokens:,}" if event.reused_tokens else ""
    ended = " (stopped at the token limit)" if event.reason == "length" else ""
    return (
        f"First word after {event.prefill_seconds:.1f} s: read {new:,} tokens at "
        f"{event.prefill_tokens_per_second:,.0f} tokens/s{reused}. "
        f"Wrote {event.new_tokens:,} at {event.decode_tokens_per_second:.1f} tokens/s{ended}."
    )


def stopped(phase: str) -> str:
    """Says what a stopped run keeps.

    Args:
        phase: what the run was doing: waiting, reading or answering.
    """
    return {
        "waiting": "Stopped before it began.",
        "answering": "Stopped. The answer so far is kept.",
    }.get(phase, "Stopped while reading. Ask again to resume from there.")


def left_out(entry: LeftOut) -> str:
    """ "poetry.lock (lock file, 12,000 tokens)"."""
    tokens = "" if entry.tokens is None else f", {entry.tokens:,} tokens"
    return f"{entry.path} ({entry.reason}{tokens})"


def doubts(health: Health, has_text: bool) -> str:
    """What may be wrong with the text of one section."""
    if health.fault:
        return health.fault
    words = []
    if not has_text:
        words.append("picture without text" if health.is_image_only else "without text")
    if health.undecodable_characters:
        words.append(f"{health.undecodable_characters:,} undecodable characters")
    if health.invisible_characters:
        words.append(f"{health.invisible_characters:,} invisible characters")
    if health.has_two_columns:
        words.append("two columns")
    if health.extractor in ("pypdf", "tesseract"):
        words.append(f"read by {health.extractor}")
    return ", ".join(words)


def citation(found: Citation) -> str:
    """Says whether a document contains what the answer cites, and where."""
    what = f"\u201c{found.quote}\u201d" if found.quote else f"[{found.mark}]"
    if not found.found:
        return f"{what}: not found in the document"
    return f"{what}: found on {found.section} of {found.document}"


def stamp(found: Citation) -> str:
    """The stamp beside a quotation: "found on p. 12", "not found in the documents"."""
    return f"found on {found.section}" if found.found else "not found in the documents"


def total_tokens(tokens: int, window_tokens: int | None) -> str:
    """All documents together, and by how much they are too many.

    Args:
        tokens: of all ticked parts.
        window_tokens: the model's context; None while no model is loaded.
    """
    if window_tokens is None:
        return f"{tokens:,} tokens"
    text = f"{tokens:,} of {window_tokens:,} tokens of context"
    if tokens >= window_tokens:
        text += f": {tokens - window_tokens + 1:,} too many for this model."
    return text


def too_much(largest: list[tuple[str, int]]) -> str:
    """Says what to do when the documents exceed the context.

    Args:
        largest: the largest parts, each with its name and tokens.
    """
    if not largest:
        return "Remove documents, or use a model with a larger context."
    named = ", ".join(f"{name} ({tokens:,} tokens)" for name, tokens in largest)
    return (
        "Untick some parts, remove documents, or use a model with a larger context. "
        f"The largest: {named}."
    )


# The forecast card and the timeline.

FORECAST_LOADING = "The forecast appears once the model is loaded."
FORECAST_COUNTING = "Counting the tokens of your documents …"
FORECAST_FAILED = "There is no forecast without a model. Choose another one in the settings."
ON_CPU = "There is no GPU here, so the CPU does the work."
NOTHING_DROPPED = "No documents yet"
KIND_NAMES = {
    "weights": "weights",
    "kv": "KV",
    "hidden": "hidden states",
    "activations": "activations",
}
_ADAPTED = {
    "chunk_tokens": "chunk",
    "hidden": "hidden states",
    "kv": "keys and values",
    "decode": "attention",
}


def forecast_tokens(tokens: int, *, is_most: bool = False) -> str:
    """The headline of the forecast: "412,380 tokens", "Up to 7,680 tokens"."""
    return f"{'Up to ' if is_most else ''}{tokens:,} tokens"


def reading_time(seconds: float) -> str:
    """Seconds for the headline: "at once", "0.4 s", "8 s", "3 min 20 s"."""
    if seconds < 0.05:
        return "at once"
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)


def token_time(seconds: float) -> str:
    """ "17 ms", "0.4 s"."""
    return f"{1000 * seconds:.0f} ms" if seconds < 0.1 else f"{seconds:.1f} s"


def reuse(reused_tokens: int, new_tokens: int) -> str:
    """Says how much need not be read again; "" if nothing."""
    if not reused_tokens:
        return ""
    return f"{reused_tokens:,} of them can be reused; {new_tokens:,} are new."


def memory_of(used_bytes: int, total_bytes: int) -> str:
    """The text of a bar: "17.9 GiB of 24.0 GiB"."""
    return f"{size_text(used_bytes)} of {size_text(total_bytes)}"


def standard_needs(size_bytes: int, *, fits: bool) -> str:
    """The mark on a bar: what plain transformers would take."""
    verdict = "" if fits else " (would not fit)"
    return f"plain transformers: {size_text(size_bytes)}{verdict}"


def reach(longest_tokens: int, window_tokens: int, model: str) -> str:
    """Says how much the model can read here, while there are no documents yet."""
    if longest_tokens >= window_tokens:
        return f"On this machine, {model} can use its whole context of {window_tokens:,} tokens."
    return (
        f"On this machine, {model} can read up to {longest_tokens:,} of the {window_tokens:,} "
        "tokens in its context."
    )


def beyond_window(prompt_tokens: int, window_tokens: int, model: str) -> str:
    """Says by how much a prompt exceeds the context."""
    return (
        f"{prompt_tokens - window_tokens:,} tokens over {model}'s limit of {window_tokens:,}. "
        "Untick some parts."
    )


def most_of(sent_tokens: int, tokens: int) -> str:
    """Says how much of the documents is sent when only the best parts are."""
    return f"up to {sent_tokens:,} of {tokens:,}"


def chosen(reason: str, *, on_cpu: bool) -> str:
    """Says what auto chose, and why."""
    words = [ON_CPU] if on_cpu else []
    return " ".join([*words, f"Chosen: {reason}."] if reason else words)


def fitted(prompt_tokens: int, sent_tokens: int, model: str) -> str:
    """Says that only the best parts are sent, and that the figures are for those."""
    return (
        f"Everything together is {prompt_tokens:,} tokens, too many for {model}. Only the parts "
        f"that best match your question are sent, up to {sent_tokens:,} tokens. The figures here "
        "are for that many."
    )


def made_of(kinds: list[tuple[str, int]]) -> str:
    """ "weights 15.0 GiB · KV 2.0 GiB", without the kinds that take next to nothing."""
    named = [f"{KIND_NAMES[kind]} {size_text(size)}" for kind, size in kinds if size >= 2**19]
    return " · ".join(named)


def changed(
    tokens: int, seconds: float | None, peak_bytes: int, survived: tuple[int, int] | None
) -> str:
    """Says what the last change costs or saves.

    Args:
        tokens: the change of the prompt's length; negative if it got shorter.
        seconds: the change of the reading time; None if unknown.
        peak_bytes: the change of the memory peak.
        survived: how many tokens can still be reused, and how many could be before; None if
            none are lost.
    """
    parts = []
    if tokens:
        parts.append(_more_or_less(f"{abs(tokens):,} tokens", tokens))
    if seconds is not None and abs(seconds) >= 0.1:
        parts.append(_more_or_less(reading_time(abs(seconds)), seconds))
    if abs(peak_bytes) >= 2**20:
        parts.append(_more_or_less(size_text(abs(peak_bytes)), peak_bytes))
    sentences = [f"This change: {', '.join(parts)}."] if parts else []
    if survived is not None:
        kept, before = survived
        sentences.append(
            f"{kept:,} of the {before:,} tokens already read can be reused; the rest come after "
            "your change."
        )
    return " ".join(sentences)


def _more_or_less(words: str, difference: float) -> str:
    return ("+" if difference > 0 else "\u2212") + words


def speed(tokens_per_second: float) -> str:
    """ "1,440 tokens/s"."""
    return f"{tokens_per_second:,.0f} tokens/s"


def at_layer(event: PrefillProgress, place: str) -> str:
    """ "Reading layer 12 of 32, p. 7 of contract.pdf"."""
    layer = f"Reading layer {min(event.layer + 1, event.layers)} of {event.layers}"
    return f"{layer}, {place}" if place else layer


def adapted(event: Adapted) -> str:
    """ "GPU memory full: chunk 8,192 \u2192 4,096, continued"."""
    before, after = (
        f"{value:,}" if isinstance(value, int) else value for value in (event.before, event.after)
    )
    full = "GPU memory" if event.full == "device" else "Memory"
    return f"{full} full: {_ADAPTED[event.what]} {before} \u2192 {after}, continued"


# The library.

NOTHING_KEPT = "Nothing is saved between sessions: mom-chat was started with --no-save."


def prepared(model: str, tokens: int, size_bytes: int) -> str:
    """The line under a prepared document in the list."""
    return f"{tokens:,} tokens, read by {model}, {size_text(size_bytes)}"


def less_kept(number: int, size_bytes: int) -> str:
    """Asks before a lower quota deletes anything."""
    what = "prepared document" if number == 1 else f"{number} prepared documents"
    return f"This deletes the least recently used {what} ({size_text(size_bytes)}). Continue?"


def quota(used_bytes: int, limit_bytes: int) -> str:
    """How full the library is, and what happens when it is full."""
    return (
        f"{size_text(used_bytes)} of {size_text(limit_bytes)} used. When it is full, the least "
        "recently used documents are deleted."
    )
