"""The longest context that fits, found with two layers of the model.

Two layers take a sixteenth of the time of all, and show everything that grows with the prompt but
the other layers' weights and KV, which are added: bytes at two lengths give a line, the line gives
the length, and a run of two layers at that length says whether the line was right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.device import Device
from benchmarks.gpu.models import random_ids, shape_of
from benchmarks.paper.run_strategy import StrategyRun, run_strategy
from mom_core.forecast.capacity import Machine
from mom_core.forecast.choose import longest_context_tokens
from mom_core.forecast.shape import ModelShape
from mom_core.strategy import Strategy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Lengths are whole multiples of this, rounded down.
_STEP_TOKENS = 1024
# Of host memory, for keys, values and hidden states; the rest is the system's and the program's.
_HOST_SHARE = 0.85
# Of the length that a line gives: an allocator leaves some memory unused.
_LENGTH_SHARE = 0.98


@dataclass(frozen=True, kw_only=True)
class Missing:
    """What a model of two layers lacks of the whole.

    Args:
        weights_bytes: weights of the other layers.
        kv_bytes: one token's, in the other layers.
    """

    weights_bytes: int
    kv_bytes: int


def missing(model: PreTrainedModel, layers: int) -> Missing:
    """Of a model cut down from `layers` layers."""
    shape = shape_of(model)
    others = layers - len(shape.layers)
    return Missing(
        weights_bytes=others * shape.layers_bytes[0],
        kv_bytes=others * shape.layer_kv_bytes_per_token,
    )


def whole_peak_bytes(run: StrategyRun, strategy: Strategy, lacking: Missing) -> int:
    """What the whole model would have taken on the device, where two layers took what they took.

    Args:
        run: what the cut model's run took.
        strategy: how it ran.
        lacking: what the cut model lacks.
    """
    kv = lacking.kv_bytes * run.prompt_tokens
    peaks = [run.prefill.reserved_peak_bytes + (kv if strategy.kv == "device" else 0)]
    if run.decode is not None:
        peaks.append(run.decode.reserved_peak_bytes + (kv if strategy.decode == "device" else 0))
    return lacking.weights_bytes + max(peaks)


def host_bound_tokens(
    shape: ModelShape, strategy: Strategy, layers: int, host_bytes: int
) -> int | None:
    """How many tokens' keys, values and hidden states the host holds; None if it holds none."""
    per_token = 0
    if strategy.kv == "host":
        per_token += layers * shape.layer_kv_bytes_per_token
    if strategy.name == "layer-streaming" and strategy.hidden == "host":
        per_token += shape.hidden * shape.dtype_bytes
    return int(host_bytes * _HOST_SHARE) // per_token if per_token else None


def find_longest(
    model: PreTrainedModel,
    strategy: Strategy,
    whole: ModelShape,
    *,
    limit_bytes: int,
    host_bytes: int,
    trial_tokens: tuple[int, int],
    device: Device,
) -> dict[str, Any]:
    """The line through two short runs, and where it meets the limit.

    Args:
        model: two layers of the whole.
        strategy: how it runs.
        whole: shape of the whole model.
        limit_bytes: device memory for tensors.
        host_bytes: all CPU memory.
        trial_tokens: two lengths, the shorter first.
        device: where the model is.
    """
    layers = len(whole.layers)
    lacking = missing(model, layers)
    runs = [_run(model, strategy, tokens, device) for tokens in trial_tokens]
    peaks = [whole_peak_bytes(run, strategy, lacking) for run in runs]
    per_token = (peaks[1] - peaks[0]) / (trial_tokens[1] - trial_tokens[0])
    fixed = peaks[0] - per_token * trial_tokens[0]
    by_device = int((limit_bytes - fixed) / per_token) if per_token > 0 else None
    by_host = host_bound_tokens(shape_of(model), strategy, layers, host_bytes)
    bounds = [bound for bound in (by_device, by_host) if bound is not None]
    longest = None
    if bounds:
        longest = int(min(bounds) * _LENGTH_SHARE) // _STEP_TOKENS * _STEP_TOKENS
    return {
        "limit_bytes": limit_bytes,
        "trials": dict(zip(map(str, trial_tokens), peaks, strict=True)),
        "fixed_bytes": int(fixed),
        "bytes_per_token": per_token,
        "device_bound_tokens": by_device,
        "host_bound_tokens": by_host,
        "longest_tokens": longest,
        "forecast_tokens": longest_context_tokens(
            whole,
            None,
            Machine(device_bytes=limit_bytes, host_bytes=host_bytes, disk_bytes=0),
            strategy,
        ),
    }


def try_with_two_layers(
    model: PreTrainedModel,
    strategy: Strategy,
    *,
    tokens: int,
    layers: int,
    limit_bytes: int,
    device: Device,
) -> dict[str, Any]:
    """Runs the cut model at the length that was found."""
    run = _run(model, strategy, tokens, device)
    peak = whole_peak_bytes(run, strategy, missing(model, layers))
    return {
        "tokens": tokens,
        "device_peak_bytes": peak,
        "limit_bytes": limit_bytes,
        "fits": peak <= limit_bytes,
        "seconds": run.prefill.seconds,
    }


def _run(model: PreTrainedModel, strategy: Strategy, tokens: int, device: Device) -> StrategyRun:
    device.free()
    ids = random_ids(model.config, tokens)
    return run_strategy(model, strategy, ids, new_tokens=2, device=device)
