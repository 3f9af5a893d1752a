"""The command line: `mom` (the page), `mom ask` (one question), `mom read` and `mom plan`.

Heavy imports wait inside the commands, so that `mom --help` is instant and `mom ask` never
imports the page.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Generator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli.document_options import document_options
from app.cli.engine_options import (
    DEFAULT_MODEL,
    TIERS,
    chunk_tokens_option,
    engine_options,
    size_option,
)
from app.cli.library import home_option, library
from app.cli.read import left_out_lines, read, read_all
from app.cli.status import Interrupted, Status, memory_text, peak_text, write_out
from mom_core.config import (
    EngineConfig,
    SamplingConfig,
)
from mom_core.errors import ContextTooLong, InvalidSetting, MomError

if TYPE_CHECKING:
    from app.documents import Document, Limits, ReadOptions
    from app.library.reuse import Reuse
    from app.prompt.prompt import Prompt, TokenizedDocument
    from mom_core.engine import Engine
    from mom_core.events import Adapted, Event, Finished, MemorySample, PrefillProgress


class _Group(click.Group):
    """`mom` without a command serves the page, with its options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("--help", "--version")):
            args = ["chat", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Group, context_settings={"help_option_names": ["--help"]})
@click.version_option(package_name="mom-chat", prog_name="mom")
def cli() -> None:
    """Talk with a model that has the whole document in its context.

    Without a command, `mom` serves the page.
    """


@cli.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Default 7860, or the next free one.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Another one demands a password."
)
@click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Holds the password of the page. Or set MOM_PASSWORD.",
)
@click.option("--token", is_flag=True, help="On a machine shared with others: only by its address.")
@click.option("--model", default=DEFAULT_MODEL, show_default=True, help="See `mom ask --help`.")
@click.option("--limit", multiple=True, metavar="NAME=N", help="Raise a limit of reading.")
@click.option("--no-cache", is_flag=True, help="Neither use nor keep texts and tokens on disk.")
@home_option
@click.option("--no-save", is_flag=True, help="Keep neither chats nor prepared documents.")
@engine_options
def chat(
    port: int | None,
    host: str,
    password_file: Path | None,
    token: bool,
    model: str,
    limit: tuple[str, ...],
    no_cache: bool,
    home: Path | None,
    no_save: bool,
    config: EngineConfig,
) -> None:
    """Serve the page on this machine until interrupted."""
    from app.cli.access_options import access_from
    from app.documents import DiskCache, parse_limits
    from app.server.serve import serve

    access = access_from(host, password_file, uses_token=token)
    serve(
        port=port,
        model=model,
        config=config,
        limits=parse_limits(limit),
        cache=None if no_cache else DiskCache(),
        access=access,
        home=home,
        saves=not no_save,
    )


cli.add_command(read)
cli.add_command(library)


@cli.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--question", "-q", required=True, help="What to ask about the documents.")
@document_options
@click.option(
    "--fit", is_flag=True, help="Over the model's context: read the parts that match best (BM25)."
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
    help="Tokens per mini-sequence.",
)
@click.option(
    "--kv",
    type=TIERS,
    default="auto",
    show_default=True,
    help="Where keys and values are kept.",
)
@click.option(
    "--hidden",
    type=TIERS,
    default="auto",
    show_default=True,
    help="Where hidden states wait between layers.",
)
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=512, show_default=True)
@click.option(
    "--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="0: greedy."
)
@home_option
@click.option("--no-save", is_flag=True, help="Neither use nor keep prepared documents.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
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
    """Ask one question about files or folders; the answer goes to stdout."""
    if not question.strip():
        raise InvalidSetting('The question is empty; write one, such as --question "What is it?".')
    from app.citations import find_citations
    from app.documents import DiskCache, receipt
    from app.prompt.fitting import fit as fit_documents

    sampling = SamplingConfig(temperature=temperature)
    cache = DiskCache() if keeps_cache else None
    documents = read_all(paths, options, limits, cache)

    status = Status()
    status.line(f"Loading {model} …")
    from app.prompt.prompt import PromptBuilder
    from mom_core.engine import Engine

    engine = Engine.load(model, config)
    for warning in engine.warnings:
        status.line(f"Note: {warning}")
    if engine.tokenizer is None:
        raise InvalidSetting(f"{model} comes without a tokenizer, so it cannot read text.")
    builder = PromptBuilder(engine.tokenizer, cache)
    tokenized = [builder.tokenize(document) for document in documents]
    for entry in tokenized:
        status.line(f"{entry.document.name}: {receipt(entry.document, entry.tokens)}")
        for line in left_out_lines(entry.document):
            status.line(line)
    prompt = builder.build(tokenized, [], question)
    notice = ""
    if fit:
        others = len(prompt.token_ids) - sum(entry.tokens for entry in tokenized)
        room = engine.context_window_tokens - others - max_new_tokens
        fitted = fit_documents(tokenized, question, room)
        prompt, notice = builder.build(fitted.documents, [], question), fitted.sentence
        if notice:
            status.line(notice)
    reuse = None if no_save else _reuse(home, status)
    try:
        run = AnswerRun(engine, status, reuse, streams=not as_json)
        answer, finished = run.answer(prompt, tokenized, max_new_tokens, sampling)
    except ContextTooLong as fault:
        raise ContextTooLong(f"{fault} {_way_out(documents)}") from fault
    if as_json:
        report = _report(answer, finished, run.peak, tokenized)
        report["chosen"] = _chosen(engine)
        citations = find_citations(answer, documents)
        report |= {"notice": notice, "citations": [asdict(citation) for citation in citations]}
        click.echo(json.dumps(report, ensure_ascii=False))


@cli.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--tokens", type=click.IntRange(min=1), help="Instead of files: how many tokens.")
@click.option(
    "--model",
    default=DEFAULT_MODEL,
    show_default=True,
    help="A short name such as llama-3-8b or qwen3.5-9b, a config.json, or as for `mom ask`.",
)
@click.option(
    "--device-memory",
    callback=size_option,
    help="Of the GPU, such as 24GiB. Default: what is free.",
)
@click.option("--host-memory", callback=size_option, help="Such as 64GiB. Default: what is free.")
@click.option(
    "--scratch-folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the files of the tier disk would lie. Default: in your cache folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def plan(
    paths: tuple[Path, ...],
    tokens: int | None,
    model: str,
    device_memory: int | None,
    host_memory: int | None,
    scratch_folder: Path | None,
    as_json: bool,
) -> None:
    """Tell what reading takes in memory and time, and what fits. Loads no weights."""
    from app.cli.plan import PlanRequest
    from app.cli.plan import plan as print_plan

    request = PlanRequest(paths, tokens, model, device_memory, host_memory, scratch_folder)
    print_plan(request, as_json=as_json)


def _reuse(home: Path | None, status: Status) -> Reuse | None:
    """The library, None if it cannot be used: a question is answered all the same."""
    from app.library.library import Library
    from app.library.reuse import Reuse

    try:
        return Reuse(Library(home))
    except InvalidSetting as fault:
        status.line(f"Note: {fault}")
        return None


class AnswerRun:
    """Draws one answer's events, streaming text and keeping people informed."""

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
        self._has_told = False
        self.peak = self._meter.sample()

    def answer(
        self,
        prompt: Prompt,
        documents: list[TokenizedDocument],
        max_new_tokens: int,
        sampling: SamplingConfig,
    ) -> tuple[str, Finished]:
        from app.interrupts import interrupts
        from mom_core.events import Adapted, Finished, PrefillProgress, Token

        pieces, finished, progress = [], None, 0.0
        events = self._events(prompt, documents, max_new_tokens, sampling)
        with interrupts() as asked:
            with contextlib.closing(events):
                for event in events:
                    if isinstance(event, PrefillProgress):
                        self._tell_decision()
                        progress = event.fraction
                        self._status.update(lambda event=event: self._reading(event))
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
                    if asked.signal_number is not None:
                        break
            if self._streams and pieces:
                write_out("\n")
            self._keep()
            if finished is None and asked.signal_number is not None:
                kept = "" if self._reuse is None else f"; the reading is kept at {progress:.0%}"
                raise Interrupted(asked.signal_number, f"Stopped{kept}.")
        assert finished is not None, "an engine's run ends with Finished"
        self._status.line(self._summary(finished))
        self._engine.learn(finished)
        return "".join(pieces), finished

    def _events(
        self,
        prompt: Prompt,
        documents: list[TokenizedDocument],
        max_new_tokens: int,
        sampling: SamplingConfig,
    ) -> Generator[Event, None, None]:
        from app.library.reuse import generate

        return generate(
            self._reuse,
            self._engine,
            prompt,
            (entry.document for entry in documents),
            max_new_tokens=max_new_tokens,
            sampling=sampling,
        )

    def _keep(self) -> None:
        """Until what was read is on the disk."""
        if self._reuse is not None:
            self._reuse.close()
            for note in self._reuse.take_notes():
                self._status.line(f"Note: {note}")

    def _tell_decision(self) -> None:
        """Once: which settings were chosen, and why."""
        forecast = self._engine.last_forecast
        if self._has_told or forecast is None:
            return
        self._has_told = True
        if forecast.fits:
            self._status.line(f"Chosen because {forecast.reason}.")
        else:
            self._status.line(f"Note: {forecast.sentence} It is tried all the same.")

    def _reading(self, event: PrefillProgress) -> str:
        eta = "" if event.eta_seconds is None else f", {event.eta_seconds:.0f} s left"
        sample = self._meter.sample()
        tokens = event.prompt_tokens - event.reused_tokens
        return f"Reading {tokens:,} tokens: {event.fraction:.0%}{eta}; {memory_text(sample)}"

    def _summary(self, event: Finished) -> str:
        # What is said here and what --json has are one figure.
        self.peak = sample = self._meter.sample()
        reason = {"stop": "complete", "length": "ended at its limit of tokens"}[event.reason]
        return (
            f"Read {event.prompt_tokens - event.reused_tokens:,} tokens in "
            f"{event.prefill_seconds:.1f} s ({event.prefill_tokens_per_second:,.0f} tokens/s), "
            f"wrote {event.new_tokens:,} in {event.decode_seconds:.1f} s "
            f"({event.decode_tokens_per_second:.1f} tokens/s, {event.tokens_per_step:.1f} a step), "
            f"{reason}; "
            f"peak {peak_text(sample)}"
        )


def _report(
    answer: str, finished: Finished, peak: MemorySample, documents: list[TokenizedDocument]
) -> dict[str, Any]:
    # Without a GPU the device is the CPU, and its memory is the process's.
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
    """The settings of the run and why, for JSON."""
    forecast = engine.last_forecast
    if forecast is None:
        return None
    return {
        "fits": forecast.fits,
        "reason": forecast.reason if forecast.fits else forecast.sentence,
        **asdict(forecast.strategy),
    }


def _way_out(documents: list[Document]) -> str:
    """Of documents that are too long together: only what is possible with them."""
    kinds = {document.kind for document in documents}
    ways = []
    if kinds == {"pdf"}:
        ways.append("with --pages you can read some pages only")
    if "code" in kinds:
        ways.append("with --exclude you can leave files out")
    if sum(len(document.sections) for document in documents) > 1:
        ways.append("with --fit only those parts are read that match the question best")
    sentence = ", ".join(ways) or "read a shorter part of the text"
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


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    """Errors a person can cause end the program with one sentence."""
    try:
        yield
    except MomError as fault:
        click.echo(f"mom: {fault}", err=True)
        sys.exit(2)
    except Interrupted as ended:
        click.echo(f"\n{ended}", err=True)
        sys.exit(128 + ended.signal_number)
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nStopped.", err=True)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        # The reader of stdout went away (`mom ask … | head`); what is buffered has no use.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def main() -> None:
    """Entry point of the `mom` program."""
    with _sentences():
        try:
            cli.main(standalone_mode=False)
        except click.ClickException as fault:
            # One sentence, not click's page of usage.
            click.echo(f"mom: {fault.format_message()}", err=True)
            sys.exit(2)


if __name__ == "__main__":
    main()
