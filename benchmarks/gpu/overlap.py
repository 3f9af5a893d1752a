"""Do copies run beside the computation? Measured, not assumed.

The same prefill three times: without copies (all on the device), with copies beside the
computation, and with the copies in the computation's own queue. What the third takes more than
the first is what copying costs; what of it the second does not take is hidden.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from benchmarks.device import Device
from benchmarks.gpu.models import shape_of
from benchmarks.paper.run_strategy import STRATEGIES, run_strategy
from mom_core.config import TierName
from mom_core.kv.transfer import Lanes

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def measure_overlap(
    model: PreTrainedModel, token_ids: list[int], *, chunk_tokens: int, repeats: int, device: Device
) -> dict[str, Any]:
    """Seconds of each way, and the share of the copying that is hidden.

    Args:
        model: on the device.
        token_ids: the prompt.
        chunk_tokens: C.
        repeats: how often each way is run, in turns; the median counts.
        device: where the model is.
    """

    streaming = replace(STRATEGIES["layer-streaming"], chunk_tokens=chunk_tokens)

    def seconds(place: TierName) -> float:
        strategy = replace(streaming, kv=place, hidden=place)
        run = run_strategy(model, strategy, token_ids, new_tokens=1, device=device)
        return run.prefill.seconds

    def in_one_queue() -> float:
        # Lanes of a CPU have no stream of their own: what is copied queues where it is called.
        one_queue = Lanes(torch.device("cpu"))
        with mock.patch("mom_core.generate.prefill.Lanes", return_value=one_queue):
            return seconds("host")

    ways = {
        "without_copies": lambda: seconds("device"),
        "beside": lambda: seconds("host"),
        "in_one_queue": in_one_queue,
    }
    for run in ways.values():
        run()
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, run in ways.items():
            samples[name].append(run())
    medians = {name: statistics.median(values) for name, values in samples.items()}
    cost = medians["in_one_queue"] - medians["without_copies"]
    shape = shape_of(model)
    # Keys and values go down once; hidden states down after and up before each layer but the ends.
    layers = len(shape.layers)
    hidden_bytes = shape.hidden * shape.dtype_bytes
    per_token = shape.kv_bytes_per_token + 2 * (layers - 1) * hidden_bytes
    copied_bytes = per_token * len(token_ids)
    return {
        "tokens": len(token_ids),
        "layers": layers,
        "seconds": medians,
        "copied_bytes": copied_bytes,
        "copies_cost_seconds": cost,
        "copied_bytes_per_second": copied_bytes / cost if cost > 0 else None,
        "hidden_share": (medians["in_one_queue"] - medians["beside"]) / cost if cost > 0 else None,
        "samples": samples,
    }
