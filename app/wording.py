"""Every sentence of the page that depends on a figure, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mom_core.events import Adapted, Finished, PrefillProgress
from mom_core.sizes import size_text

if TYPE_CHECKING:
    from pathlib import Path

    from app.citations import Citation
    from app.documents import Health, LeftOut

# A speed over less than this says nothing.
_SPEED_FROM_SECONDS = 2.0

WAITING = "Waiting for the model …"
LOADING = "Loading the model …"
NO_DEVICE = "No GPU: the CPU computes"
EDIT = "Edit"
COPY = "Copy"
AGAIN = "Answer again"
EMPTY_QUESTION = "Write a question first."
BUSY_MODEL = "The model is at work. Wait, or stop the runs, before you change it."
BUSY = "The model is still at work on the last question. Wait, or press Stop."


def library_is_gone(folder: Path) -> str:
    return (
        f"The library {folder} is gone: it was deleted or its disk was taken away. Bring it back, "
        "or start mom-chat again to have a new one."
    )


def in_line(position: int) -> str:
    """For a question that waits for others."""
    before = "One question is" if position == 1 else f"{position} questions are"
    return f"Waiting in line: {before} before this one."


def size(size_bytes: int) -> str:
    """In GiB, in steps of 10 MB."""
    return f"{size_bytes / 2**30:.2f} GiB"


def on_disk(size_bytes: int) -> str:
    return f"{size(size_bytes)} in files on the disk"


def duration(seconds: float) -> str:
    """Short and rounded: "8 s", "3 min 20 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def reading(event: PrefillProgress) -> str:
    """The line under the bar while the prompt is read."""
    new = event.prompt_tokens - event.reused_tokens
    known = f" ({event.reused_tokens:,} known already)" if event.reused_tokens else ""
    left = "" if event.eta_seconds is None else f", about {duration(event.eta_seconds)} left"
    speed = ""
    if event.elapsed_seconds >= _SPEED_FROM_SECONDS:
        speed = f", {event.fraction * new / event.elapsed_seconds:,.0f} tokens/s"
    return (
        f"Reading {new:,} tokens{known}: {event.fraction:.0%}, "
        f"layer {min(event.layer + 1, event.layers)} of {event.layers}{speed}{left}"
    )


def answering(tokens: int) -> str:
    return f"Answering: {tokens:,} {'token' if tokens == 1 else 'tokens'}"


def figures(event: Finished) -> str:
    """Under a finished answer."""
    new = event.prompt_tokens - event.reused_tokens
    known = f", {event.reused_tokens:,} known already" if event.reused_tokens else ""
    ended = " (ended at its limit of tokens)" if event.reason == "length" else ""
    return (
        f"First word after {event.prefill_seconds:.1f} s: read {new:,} tokens at "
        f"{event.prefill_tokens_per_second:,.0f} tokens/s{known}. "
        f"Wrote {event.new_tokens:,} at {event.decode_tokens_per_second:.1f} tokens/s{ended}."
    )


def stopped(phase: str) -> str:
    """By what was being done."""
    return {
        "waiting": "Stopped before its turn came.",
        "answering": "Stopped; what was written is kept.",
    }.get(phase, "Stopped while reading. Asked again, it goes on from there.")


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
    """Whether the document says it, and where."""
    what = f"\u201c{found.quote}\u201d" if found.quote else f"[{found.mark}]"
    if not found.found:
        return f"{what}: not found in the document"
    return f"{what}: found on {found.section} of {found.document}"


def stamp(found: Citation) -> str:
    """Beside a quotation: "found on p. 12", "not found in the documents"."""
    return f"found on {found.section}" if found.found else "not found in the documents"


def total_tokens(tokens: int, window_tokens: int | None) -> str:
    if window_tokens is None:
        return f"{tokens:,} tokens"
    text = f"{tokens:,} of {window_tokens:,} tokens of the context"
    if tokens >= window_tokens:
        text += f": too much for this model by {tokens - window_tokens + 1:,} tokens."
    return text


def too_much(largest: list[tuple[str, int]]) -> str:
    """What to do about it."""
    named = ", ".join(f"{name} ({tokens:,} tokens)" for name, tokens in largest)
    untick = f"Untick parts, such as {named}; r" if named else "R"
    return f"{untick}emove documents, or use a model with a larger context."


# The forecast card and the timeline.

FORECAST_LOADING = "The forecast comes once the model is loaded."
FORECAST_COUNTING = "The documents are being counted …"
FORECAST_FAILED = "Without a model there is no forecast. Choose another one in the settings."
RATES_UNKNOWN = "How long it takes is not known before this machine's speed is measured."
ALL_KNOWN = "All of it is read already."
ON_CPU = "No GPU here: the CPU computes."
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
    return f"{'Up to ' if is_most else ''}{tokens:,} tokens"


def reading_time(seconds: float) -> str:
    """For the headline: "at once", "0.4 s", "8 s", "3 min 20 s"."""
    if seconds < 0.05:
        return "at once"
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)


def token_time(seconds: float) -> str:
    """ "17 ms", "0.4 s"."""
    return f"{1000 * seconds:.0f} ms" if seconds < 0.1 else f"{seconds:.1f} s"


def reuse(reused_tokens: int, new_tokens: int) -> str:
    """What is not read again."""
    if not reused_tokens:
        return ""
    return f"{reused_tokens:,} of them are read already; {new_tokens:,} are new."


def memory_of(used_bytes: int, total_bytes: int) -> str:
    return f"{size_text(used_bytes)} of {size_text(total_bytes)}"


def standard_needs(size_bytes: int, *, fits: bool) -> str:
    verdict = "" if fits else ", which does not fit"
    return f"plain transformers: {size_text(size_bytes)}{verdict}"


def reach(longest_tokens: int, window_tokens: int, model: str) -> str:
    """What may be dropped, where nothing is."""
    if longest_tokens >= window_tokens:
        return f"{model} on this machine reads up to {window_tokens:,} tokens: all of its window."
    return (
        f"{model} on this machine reads up to {longest_tokens:,} of the {window_tokens:,} tokens "
        "of its window."
    )


def beyond_window(prompt_tokens: int, window_tokens: int, model: str) -> str:
    """More than the model can read at once."""
    return (
        f"This is {prompt_tokens - window_tokens:,} tokens more than {model} reads at once "
        f"({window_tokens:,}): untick parts."
    )


def most_of(sent_tokens: int, tokens: int) -> str:
    """Of the documents only the best parts are sent."""
    return f"up to {sent_tokens:,} of {tokens:,}"


def chosen(reason: str, *, on_cpu: bool) -> str:
    """What auto chose and why."""
    words = [ON_CPU] if on_cpu else []
    return " ".join([*words, f"Chosen: {reason}."] if reason else words)


def fitted(prompt_tokens: int, sent_tokens: int, model: str) -> str:
    """Only the parts that match best are read; the figures are for those."""
    return (
        f"All of it is {prompt_tokens:,} tokens, more than {model} reads at once. The parts that "
        f"match your question best are sent, up to {sent_tokens:,} tokens; these figures are for "
        "so many."
    )


def made_of(kinds: list[tuple[str, int]]) -> str:
    """ "weights 15.0 GiB · KV 2.0 GiB"; what is nothing is not named."""
    named = [f"{KIND_NAMES[kind]} {size_text(size)}" for kind, size in kinds if size >= 2**19]
    return " · ".join(named)


def changed(
    tokens: int, seconds: float | None, peak_bytes: int, survived: tuple[int, int] | None
) -> str:
    """The price of the last change.

    Args:
        tokens: of the prompt, more or (below 0) less.
        seconds: to read, the same; None if not known.
        peak_bytes: the same.
        survived: tokens still read, of so many before; None if none are lost.
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
            f"Of {before:,} tokens already read, {kept:,} stay read: those before the change."
        )
    return " ".join(sentences)


def _more_or_less(words: str, difference: float) -> str:
    return ("+" if difference > 0 else "\u2212") + words


def speed(tokens_per_second: float) -> str:
    return f"{tokens_per_second:,.0f} tokens/s"


def at_layer(event: PrefillProgress, place: str) -> str:
    """ "Reading layer 12 of 32, p. 7 of contract.pdf"."""
    layer = f"Reading layer {min(event.layer + 1, event.layers)} of {event.layers}"
    return f"{layer}, {place}" if place else layer


def adapted(event: Adapted) -> str:
    """ "chunk 8,192 \u2192 4,096, continued"."""
    before, after = (
        f"{value:,}" if isinstance(value, int) else value for value in (event.before, event.after)
    )
    full = "GPU" if event.full == "device" else "memory"
    return f"{full} full: {_ADAPTED[event.what]} {before} \u2192 {after}, continued"


# The library.

NOTHING_KEPT = "Nothing is kept between starts: the program runs with --no-save."


def prepared(model: str, tokens: int, size_bytes: int) -> str:
    """Of a prepared document."""
    return f"{tokens:,} tokens, read by {model}, {size_text(size_bytes)}"


def less_kept(number: int, size_bytes: int) -> str:
    """Before a quota is lowered."""
    what = "one prepared document" if number == 1 else f"{number} prepared documents"
    return f"This deletes {what}, used least recently ({size_text(size_bytes)}). Go on?"


def quota(used_bytes: int, limit_bytes: int) -> str:
    return (
        f"{size_text(used_bytes)} of at most {size_text(limit_bytes)}; what was used least "
        "recently makes room."
    )
