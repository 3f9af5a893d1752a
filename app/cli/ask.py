"""`mom ask`: one question about files or folders, answered on stdout."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli.common_options import DEFAULT_MODEL, home_option, json_option
from app.cli.document_options import document_options
from app.cli.engine_options import TIERS, chunk_tokens_option, engine_options
from app.cli.read import left_out_lines, read_all
from app.cli.status import Interrupted, Status, memory_text, peak_text, write_out
from mom_core.config import EngineConfig, SamplingConfig
from mom_core.errors import ContextTooLong, InvalidSetting

if TYPE_CHECKING:
    from app.documents import DiskCache, Document, Limits, ReadOptions
    from app.library.reuse import Reuse
    from app.prompt.prompt import Prompt, TokenizedDocument
    from mom_core.engine import Engine
    from mom_core.events import Adapted, Finished, MemorySample, PrefillProgress


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--question", "-q", required=True, help="What to ask about the documents.")
@document_options
@click.option(
    "--fit",
    is_flag=True,
    help="If it exceeds the model's context, read only the parts that match best (BM25).",
)
@click.option(
    "--model",
    default=DEFAULT_MODEL,
    show_default=True,
    help="The built-in model's name, an id on the model hub, a folder, or a .gguf file.",
)
@click.option(
    "--chunk-tokens",
    metavar="N|auto",
    callback=chunk_tokens_option,
    default="auto",
    show_default=True,
    help="Tokens per chunk.",
)
@click.option(
    "--kv", type=TIERS, default="auto", show_default=True, help="Where keys and values are stored."
)
@click.option(
    "--hidden",
    type=TIERS,
    default="auto",
    show_default=True,
    help="Where hidden states wait between layers.",
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Longest answer.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="0 is greedy.",
)
@home_option
@click.option("--no-save", is_flag=True, help="Do not use or store prepared documents.")
@json_option
@engine_options
def ask(
    paths: tuple[Path, ...],
    question: str,
    options: ReadOptions,
    limits: Limits,
    keeps_cache: bool,
    fit: bool,
    model: str,
    config: EngineConfig,
    max_new_tokens: int,
    temperature: float,
    home: Path | None,
    no_save: bool,
    as_json: bool,
) -> None:
    """Ask one question about files or folders. The answer goes to stdout."""
    if not question.strip():
        raise InvalidSetting('The question is empty; write one, such as --question "What is it?".')
    from app.citations import find_citations
    from app.documents import DiskCache

    sampling = SamplingConfig(temperature=temperature)
    cache = DiskCache() if keeps_cache else None
    documents = read_all(paths, options, limits, cache)
    status = Status()
    engine = _load(model, config, status)
    tokenized, prompt, notice = _prompt(
        engine, documents, question, max_new_tokens if fit else None, cache, status
    )
    reuse = None if no_save else _reuse(home, status)
    try:
        run = AnswerRun(engine, status, reuse, streams=not as_json)
        answer, finished = run.answer(prompt, tokenized, max_new_tokens, sampling)
    except ContextTooLong as fault:
        raise ContextTooLong(f"{fault} {way_out(documents)}") from fault
    if as_json:
        report = _report(answer, finished, run.peak, tokenized)
        report["chosen"] = _chosen(engine)
        citations = find_citations(answer, documents)
        report |= {"notice": notice, "citations": [asdict(citation) for citation in citations]}
        click.echo(json.dumps(report, ensure_ascii=False))


def _load(model: str, config: EngineConfig, status: Status) -> Engine:
    status.line(f"Loading {model} …")
    from mom_core.engine import Engine

    engine = Engine.load(model, config)
    for warning in engine.warnings:
        status.line(f"Note: {warning}")
    return engine


def _prompt(
    engine: Engine,
    documents: Sequence[Document],
    question: str,
    answer_tokens: int | None,
    cache: DiskCache | None,
    status: Status,
) -> tuple[list[TokenizedDocument], Prompt, str]:
    """Documents as tokens, the prompt, and what to say about parts that were left out.

    With `answer_tokens`, only the parts that match best are put in where not all of them fit
    beside an answer of that length.
    """
    from app.documents import receipt
    from app.prompt.fitting import fit
    from app.prompt.prompt import PromptBuilder

    if engine.tokenizer is None:
        raise InvalidSetting(f"{engine.name} comes without a tokenizer, so it cannot read text.")
    builder = PromptBuilder(engine.tokenizer, cache)
    tokenized = [builder.tokenize(document) for document in documents]
    for entry in tokenized:
        status.line(f"{entry.document.name}: {receipt(entry.document, entry.tokens)}")
        for line in left_out_lines(entry.document):
            status.line(line)
    frame = builder.frame([], question, has_documents=True)
    if answer_tokens is None:
        return tokenized, frame.around(tokenized), ""
    room = engine.context_window_tokens - frame.tokens - answer_tokens
    fitted = fit(tokenized, question, room)
    if fitted.sentence:
        status.line(fitted.sentence)
    return tokenized, frame.around(fitted.documents), fitted.sentence


def _reuse(home: Path | None, status: Status) -> Reuse | None:
    """The library; None if it cannot be used, because the question is answered all the same."""
    from app.library.library import Library
    from app.library.reuse import Reuse

    try:
        return Reuse(Library(home))
    except InvalidSetting as fault:
        status.line(f"Note: {fault}")
        return None


class AnswerRun:
    """One answer: prints its text as it comes, and the progress on stderr.

    Args:
        engine: answers.
        status: the lines on stderr.
        reuse: the library; None without one.
        streams: whether the text is printed as it comes.

    Attributes:
        peak: memory at the end of the run.
    """

    def __init__(
        self, engine: Engine, status: Status, reuse: Reuse | None, *, streams: bool
    ) -> None:
        from mom_core.hardware.meter import Meter

        self._engine = engine
        self._reuse = reuse
        self._status = status
        self._streams = streams
        self._meter = Meter(engine)
        self._meter.reset_peak()
        self._has_shown_decision = False
        self.peak = self._meter.sample()

    def answer(
        self,
        prompt: Prompt,
        documents: Sequence[TokenizedDocument],
        max_new_tokens: int,
        sampling: SamplingConfig,
    ) -> tuple[str, Finished]:
        """Reads and answers; Ctrl-C and SIGTERM stop it after the current step.

        Args:
            prompt: the whole prompt.
            documents: the documents in it, to name the library's entry after.
            max_new_tokens: the longest answer.
            sampling: how tokens are chosen.

        Returns:
            The answer, and how the run ended.

        Raises:
            Interrupted: a signal stopped it.
        """
        from app.interrupts import interrupts
        from app.library.reuse import generate
        from mom_core.events import Adapted, Finished, PrefillProgress, Token

        pieces, finished, fraction = list[str](), None, 0.0
        events = generate(
            self._reuse,
            self._engine,
            prompt,
            (entry.document for entry in documents),
            max_new_tokens=max_new_tokens,
            sampling=sampling,
        )
        with interrupts() as received:
            with contextlib.closing(events):
                for event in events:
                    if isinstance(event, PrefillProgress):
                        self._show_decision()
                        fraction = event.fraction
                        self._status.update(functools.partial(self._reading, event))
                    elif isinstance(event, Adapted):
                        self._status.line(_adapted(event))
                    elif isinstance(event, Token):
                        if not event.index:
                            self._status.clear()
                        pieces.append(event.text)
                        if self._streams:
                            write_out(event.text)
                    elif isinstance(event, Finished):
                        finished = event
                    if received.signal_number is not None:
                        break
            if self._streams and pieces:
                write_out("\n")
            self._save()
            if finished is None and received.signal_number is not None:
                saved = "" if self._reuse is None else f"; the reading is saved at {fraction:.0%}"
                raise Interrupted(received.signal_number, f"Stopped{saved}.")
        assert finished is not None, "an engine's run ends with Finished"
        self._status.line(self._summary(finished))
        self._engine.learn(finished)
        return "".join(pieces), finished

    def _save(self) -> None:
        """Waits until the reading is on the disk."""
        if self._reuse is not None:
            self._reuse.close()
            for note in self._reuse.take_notes():
                self._status.line(f"Note: {note}")

    def _show_decision(self) -> None:
        """Once: which settings were chosen, and why."""
        forecast = self._engine.last_forecast
        if self._has_shown_decision or forecast is None:
            return
        self._has_shown_decision = True
        if forecast.fits:
            self._status.line(f"Chosen because {forecast.reason}.")
        else:
            self._status.line(f"Note: {forecast.sentence} Trying it anyway.")

    def _reading(self, event: PrefillProgress) -> str:
        eta = "" if event.eta_seconds is None else f", {event.eta_seconds:.0f} s left"
        sample = self._meter.sample()
        tokens = event.prompt_tokens - event.reused_tokens
        return f"Reading {tokens:,} tokens: {event.fraction:.0%}{eta}; {memory_text(sample)}"

    def _summary(self, event: Finished) -> str:
        # The line on stderr and --json show the same figure.
        self.peak = sample = self._meter.sample()
        reason = {"stop": "complete", "length": "cut off at the token limit"}[event.reason]
        return (
            f"Read {event.prompt_tokens - event.reused_tokens:,} tokens in "
            f"{event.prefill_seconds:.1f} s ({event.prefill_tokens_per_second:,.0f} tokens/s), "
            f"wrote {event.new_tokens:,} in {event.decode_seconds:.1f} s "
            f"({event.decode_tokens_per_second:.1f} tokens/s, {event.tokens_per_step:.1f} a step), "
            f"{reason}; "
            f"peak {peak_text(sample)}"
        )


def _report(
    answer: str, finished: Finished, peak: MemorySample, documents: Sequence[TokenizedDocument]
) -> dict[str, Any]:
    # Without a GPU the CPU is the device, and its memory is the process's.
    peak_device = peak.host_peak_bytes if peak.device_name is None else peak.device_peak_bytes
    return {
        "answer": answer,
        "finish_reason": finished.reason,
        "prompt_tokens": finished.prompt_tokens,
        "reused_tokens": finished.reused_tokens,
        "resumed_fraction": finished.resumed_fraction,
        "new_tokens": finished.new_tokens,
        "prefill_seconds": finished.prefill_seconds,
        "decode_seconds": finished.decode_seconds,
        "prefill_tokens_per_second": finished.prefill_tokens_per_second,
        "decode_tokens_per_second": finished.decode_tokens_per_second,
        "tokens_per_step": finished.tokens_per_step,
        "peak_device_bytes": peak_device,
        "peak_host_bytes": peak.host_peak_bytes,
        "documents": [
            {
                "name": entry.document.name,
                "sections": len(entry.document.sections),
                "tokens": entry.tokens,
            }
            for entry in documents
        ],
    }


def _chosen(engine: Engine) -> dict[str, Any] | None:
    """The run's settings and why they were chosen, for JSON."""
    forecast = engine.last_forecast
    if forecast is None:
        return None
    return {
        "fits": forecast.fits,
        "reason": forecast.reason if forecast.fits else forecast.sentence,
        **asdict(forecast.strategy),
    }


def way_out(documents: Sequence[Document]) -> str:
    """What a person can do about documents that are too long: only what these documents allow."""
    kinds = {document.kind for document in documents}
    ways = []
    if kinds == {"pdf"}:
        ways.append("use --pages to read only some pages")
    if "code" in kinds:
        ways.append("use --exclude to leave files out")
    if sum(len(document.sections) for document in documents) > 1:
        ways.append("use --fit to read only the parts that match the question best")
    sentence = ", or ".join(ways) or "read a shorter part of the text"
    return f"{sentence[0].upper()}{sentence[1:]}."


def _adapted(event: Adapted) -> str:
    what = {
        "chunk_tokens": "chunk",
        "hidden": "hidden states",
        "kv": "keys and values",
        "decode": "attention while answering",
    }[event.what]
    before, after = (f"{v:,}" if isinstance(v, int) else v for v in (event.before, event.after))
    full = "The GPU's memory" if event.full == "device" else "This machine's memory"
    return f"{full} was full: {what} {before} -> {after}, continued."
