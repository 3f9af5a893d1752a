"""`mom plan`: what reading a document takes and what fits, before anything is loaded.

Works without weights: the recommended models' configs ship with the program.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mom_core.errors import InvalidSetting
from mom_core.sizes import size_text

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from mom_core.forecast.capacity import Machine
    from mom_core.forecast.choose import Candidate
    from mom_core.forecast.compare import Comparison
    from mom_core.forecast.seconds import Duration
    from mom_core.strategy import StrategyName

# Of English text and code, for models whose tokenizer is not here.
_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What the command was called with.

    Args:
        paths: documents.
        tokens: instead of documents.
        model: short name, hub id, folder or config.json.
        device_memory: bytes of a GPU; None is what is free of this machine's own device.
        host_memory: bytes of CPU memory; None is what is free of this machine's.
        scratch_folder: where files of the disk tier would lie.
    """

    paths: tuple[Path, ...]
    tokens: int | None
    model: str
    device_memory: int | None
    host_memory: int | None
    scratch_folder: Path | None


def plan(request: PlanRequest, *, as_json: bool) -> None:
    """Prints the plan.

    Raises:
        MomError: a document or a model cannot be read, or nothing says how long the prompt is.
    """
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
        click.echo(
            "Minutes are not told: this machine has no GPU, so how fast that one is cannot be "
            "measured here."
        )


def _tokens(request: PlanRequest) -> tuple[int, bool]:
    """How long the prompt is, and whether that is a guess."""
    if request.paths and request.tokens is not None:
        raise InvalidSetting("Give either files or --tokens, not both.")
    if request.tokens is not None:
        return request.tokens, False
    if not request.paths:
        raise InvalidSetting(
            "Say what is to be read: name files or folders, or give --tokens, such as "
            "--tokens 400000."
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
    """What is free, or as large as a person says; and whether a run on it can be timed here."""
    import psutil
    import torch

    from mom_core.forecast.capacity import Machine
    from mom_core.hardware.host import free_disk_bytes, host_free_bytes, host_total_bytes
    from mom_core.kv.scratch import default_scratch_folder

    device = request.device_memory
    if device is None and torch.cuda.is_available():
        device = int(torch.cuda.mem_get_info()[0])
    resident_bytes = psutil.Process().memory_info().rss
    machine = Machine(
        device_bytes=device,
        host_bytes=request.host_memory or host_free_bytes(host_total_bytes(), resident_bytes),
        disk_bytes=free_disk_bytes(request.scratch_folder or default_scratch_folder()),
    )
    return machine, request.device_memory is None or torch.cuda.is_available()


def _dtype(config: PretrainedConfig, machine: Machine, is_here: bool) -> Any:
    import torch

    from mom_core.model.dtype_probe import ModelSize, fastest_cpu_dtype

    if machine.device_bytes is not None or not is_here:
        return torch.bfloat16
    return fastest_cpu_dtype(ModelSize.of(config.get_text_config()))


def _others(name: str, dtype: Any) -> list[Candidate]:
    """The recommended models, to name one if nothing fits."""
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
        # Without a GPU the device is the host.
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
    def told(what: str, size_bytes: int, asked: int | None) -> str:
        # What is free changes with every program that starts; what a person names does not.
        return f"{what} {size_text(size_bytes)} {'free' if asked is None else 'in all'}"

    device = (
        "no GPU: the device is the host"
        if machine.device_bytes is None
        else told("device", machine.device_bytes, request.device_memory)
    )
    about = "about " if is_estimate else ""
    shape = model.shape
    lines = [
        f"{shape.name}: {about}{tokens:,} tokens; weights {size_text(shape.weights_bytes)}, "
        f"keys and values {shape.kv_bytes_per_token / 1024:g} KiB a token",
        f"{device}, {told('host', machine.host_bytes, request.host_memory)}, "
        f"disk {size_text(machine.disk_bytes)} free",
    ]
    if is_estimate:
        lines.append(
            "The model's tokenizer is not on this machine: tokens are counted as four bytes each."
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
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _verdict(
    comparison: Comparison,
    model: Candidate,
    tokens: int,
    durations: dict[StrategyName, Duration],
) -> str:
    from mom_core.forecast.choose import Refusal

    auto = comparison.auto
    told = auto.sentence if isinstance(auto, Refusal) else f"Auto: {auto.reason}."
    ours = durations.get("layer-streaming")
    if ours is not None and not isinstance(auto, Refusal):
        told += (
            f" About {ours.prefill_seconds / 60:.1f} minutes to read, "
            f"{ours.token_seconds:.2g} s for each token of the answer."
        )
    window = model.shape.window_tokens
    if tokens > window:
        told += f" {model.shape.name} was made for {window:,} tokens; beyond, answers get worse."
    return told
