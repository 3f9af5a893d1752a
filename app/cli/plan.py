"""`mom plan`: what reading a document takes and whether it fits, before anything is loaded.

It needs no weights: the recommended models' configs ship with the program.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli.common_options import DEFAULT_MODEL, json_option, scratch_folder_option
from app.cli.engine_options import size_option
from app.cli.table import table
from mom_core.errors import InvalidSetting
from mom_core.sizes import size_text

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from mom_core.forecast.capacity import Machine
    from mom_core.forecast.choose import Candidate
    from mom_core.forecast.compare import Comparison
    from mom_core.forecast.seconds import Duration
    from mom_core.strategy import StrategyName

# English text and code, for models whose tokenizer is not on this machine.
_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """The command's arguments.

    Args:
        paths: documents.
        tokens: length of the prompt, in place of documents.
        model: short name, hub id, folder or config.json.
        device_memory: bytes of a GPU; None for what is free on this machine's device.
        host_memory: bytes of CPU memory; None for what is free on this machine.
        scratch_folder: folder for the disk tier's files; None for the default one.
    """

    paths: tuple[Path, ...]
    tokens: int | None
    model: str
    device_memory: int | None
    host_memory: int | None
    scratch_folder: Path | None


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--tokens", type=click.IntRange(min=1), help="Length of the prompt, in place of files."
)
@click.option(
    "--model",
    default=DEFAULT_MODEL,
    show_default=True,
    help="A short name such as llama-3-8b or qwen3.5-9b, a config.json, or as in `mom ask`.",
)
@click.option(
    "--device-memory",
    metavar="SIZE",
    callback=size_option,
    help="GPU memory, such as 24GiB. Default: what is free.",
)
@click.option(
    "--host-memory",
    metavar="SIZE",
    callback=size_option,
    help="Memory of the machine, such as 64GiB. Default: what is free.",
)
@scratch_folder_option
@json_option
def plan(
    paths: tuple[Path, ...],
    tokens: int | None,
    model: str,
    device_memory: int | None,
    host_memory: int | None,
    scratch_folder: Path | None,
    as_json: bool,
) -> None:
    """Estimate memory and time, and whether a document fits. Loads no weights."""
    request = PlanRequest(paths, tokens, model, device_memory, host_memory, scratch_folder)
    _print_plan(request, as_json=as_json)


def _print_plan(request: PlanRequest, *, as_json: bool) -> None:
    import torch

    from mom_core.forecast.choose import Candidate
    from mom_core.forecast.compare import compare
    from mom_core.forecast.recurrent import recurrent_bytes
    from mom_core.forecast.seconds import corrected, rates_for
    from mom_core.forecast.shape import ModelShape
    from mom_core.model.checkpoint import without_warnings
    from mom_core.model.load import find_config

    tokens, is_estimate = _tokens(request)
    config, name = find_config(request.model)
    machine, is_here = _machine(request)
    dtype = _dtype(config, machine, is_here)
    device = torch.device(machine.device_type)
    with without_warnings():
        model = Candidate(ModelShape.of_config(config, name, dtype), recurrent_bytes(config, dtype))
        comparison = compare(
            model,
            tokens,
            machine,
            others=lambda: _others(name, dtype),
            rates=rates_for(model.shape, dtype, device) if is_here else None,
        )
    durations = {
        strategy: corrected(row.duration, model.shape, device)
        for strategy, row in comparison.rows.items()
        if row.duration is not None
    }
    report = _report(name, tokens, machine, comparison, durations)
    if as_json:
        click.echo(json.dumps(report))
        return
    click.echo(_heading(model, tokens, machine, request, is_estimate=is_estimate))
    click.echo(_table(report))
    click.echo(_verdict(comparison, model, tokens, durations))
    if not is_here:
        click.echo("No time estimate: there is no GPU here to measure.")


def _tokens(request: PlanRequest) -> tuple[int, bool]:
    """Length of the prompt, and whether that is an estimate."""
    if request.paths and request.tokens is not None:
        raise InvalidSetting("Give either files or --tokens, not both.")
    if request.tokens is not None:
        return request.tokens, False
    if not request.paths:
        raise InvalidSetting(
            "Nothing to plan for: name files or folders, or give --tokens, such as --tokens 400000."
        )
    from app.documents import read

    documents = [read(path) for path in request.paths]
    tokenizer = _tokenizer(request.model)
    if tokenizer is None:
        sizes = (len(s.text.encode()) for document in documents for s in document.sections)
        return max(1, sum(sizes) // _BYTES_PER_TOKEN), True
    from app.prompt.prompt import PromptBuilder

    builder = PromptBuilder(tokenizer)
    return max(1, sum(builder.tokenize(document).tokens for document in documents)), False


def _tokenizer(model: str) -> PreTrainedTokenizerBase | None:
    """The model's tokenizer if it is on this machine."""
    from transformers import AutoTokenizer

    from mom_core.model.builtin import BUILTIN_NAME, builtin_folder
    from mom_core.model.catalogue import catalogue

    where = str(builtin_folder()) if model == BUILTIN_NAME else model
    entry = catalogue().get(where)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            entry.id if entry else where, local_files_only=True
        )
    except (OSError, ValueError, KeyError, ImportError):
        return None
    return tokenizer


def _machine(request: PlanRequest) -> tuple[Machine, bool]:
    """The machine to plan for, and whether runs on it can be timed here."""
    import torch

    from mom_core.forecast.capacity import Machine

    machine = Machine.here(
        device_bytes=request.device_memory,
        host_bytes=request.host_memory,
        scratch_folder=request.scratch_folder,
    )
    return machine, request.device_memory is None or torch.cuda.is_available()


def _dtype(config: PretrainedConfig, machine: Machine, is_here: bool) -> Any:
    import torch

    from mom_core.model.dtype_probe import ModelSize, fastest_cpu_dtype

    if machine.device_bytes is not None or not is_here:
        return torch.bfloat16
    return fastest_cpu_dtype(ModelSize.of(config.get_text_config()))


def _others(name: str, dtype: Any) -> list[Candidate]:
    """The other recommended models, to suggest one if nothing fits."""
    from transformers import AutoConfig

    from mom_core.forecast.choose import Candidate
    from mom_core.forecast.recurrent import recurrent_bytes
    from mom_core.forecast.shape import ModelShape
    from mom_core.model.catalogue import catalogue

    configs = {
        entry.name: AutoConfig.for_model(**entry.config)
        for entry in catalogue().values()
        if entry.name != name
    }
    return [
        Candidate(ModelShape.of_config(config, other, dtype), recurrent_bytes(config, dtype))
        for other, config in configs.items()
    ]


def _report(
    name: str,
    tokens: int,
    machine: Machine,
    comparison: Comparison,
    durations: dict[StrategyName, Duration],
) -> dict[str, Any]:
    return {
        "model": name,
        "tokens": tokens,
        # Without a GPU the host is the device.
        "device_memory_bytes": machine.device_bytes or machine.host_bytes,
        "host_memory_bytes": machine.host_bytes,
        "strategies": [
            {
                "name": strategy,
                "device_peak_bytes": row.forecast.device_peak_bytes,
                "host_peak_bytes": row.forecast.host_peak_bytes,
                "disk_bytes": row.forecast.disk_bytes,
                "minutes": (
                    durations[strategy].prefill_seconds / 60 if strategy in durations else None
                ),
                "longest_context_tokens": row.longest_context_tokens,
                "prefill_device_peak_bytes": row.forecast.prefill.device_bytes,
                "fits": row.fits,
            }
            for strategy, row in comparison.rows.items()
        ],
        "chosen": comparison.chosen,
    }


def _heading(
    model: Candidate, tokens: int, machine: Machine, request: PlanRequest, *, is_estimate: bool
) -> str:
    def memory(tier: str, size_bytes: int, given: int | None) -> str:
        # What is free changes with every program that starts; what a person gives does not.
        return f"{tier} {size_text(size_bytes)} {'free' if given is None else 'in all'}"

    device = (
        "no GPU: the device is the host"
        if machine.device_bytes is None
        else memory("device", machine.device_bytes, request.device_memory)
    )
    about = "about " if is_estimate else ""
    shape = model.shape
    lines = [
        f"{shape.name}: {about}{tokens:,} tokens; weights {size_text(shape.weights_bytes)}, "
        f"keys and values {shape.kv_bytes_per_token / 1024:g} KiB a token",
        f"{device}, {memory('host', machine.host_bytes, request.host_memory)}, "
        f"disk {size_text(machine.disk_bytes)} free",
    ]
    if is_estimate:
        lines.append(
            "The model's tokenizer is not on this machine, so a token is taken to be four bytes."
        )
    return "\n".join(lines)


def _table(report: dict[str, Any]) -> str:
    rows = [["strategy", "device", "host", "disk", "minutes", "longest context", "fits"]]
    for row in report["strategies"]:
        minutes = row["minutes"]
        rows.append(
            [
                row["name"],
                size_text(row["device_peak_bytes"]),
                size_text(row["host_peak_bytes"]),
                size_text(row["disk_bytes"]),
                "-" if minutes is None else f"{minutes:.1f}",
                f"{row['longest_context_tokens']:,}",
                "yes" if row["fits"] else "no",
            ]
        )
    return table(rows, has_figures=True)


def _verdict(
    comparison: Comparison,
    model: Candidate,
    tokens: int,
    durations: dict[StrategyName, Duration],
) -> str:
    from mom_core.forecast.choose import Refusal

    auto = comparison.auto
    verdict = auto.sentence if isinstance(auto, Refusal) else f"Auto: {auto.reason}."
    ours = durations.get("layer-streaming")
    if ours is not None and not isinstance(auto, Refusal):
        verdict += (
            f" About {ours.prefill_seconds / 60:.1f} minutes to read, "
            f"{ours.token_seconds:.2g} s for each token of the answer."
        )
    window = model.shape.window_tokens
    if tokens > window:
        verdict += (
            f" {model.shape.name} was made for {window:,} tokens; beyond that, answers get worse."
        )
    return verdict
