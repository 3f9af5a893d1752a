"""Is it right on this card? Attention, every family, every tier, against references.

The small models are those of the tests, whose every feature matters. A reference is plain
transformers in fp32 on the same device, or the textbook's attention in fp64 on the CPU.
"""

from __future__ import annotations

import itertools
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.device import Device
from benchmarks.gpu.models import llama_config, random_ids, random_model
from benchmarks.record import ROOT
from mom_core import Engine, EngineConfig, memory_saving
from mom_core.attention import Segment, segment_attention
from mom_core.config import DecodeMode, Weights
from mom_core.model.seam.plain import plain_next_logits
from tests.equivalence.models import FAMILIES, make_model, make_prompt, plain_greedy, relative_error
from tests.properties.dense import SCALE, dense

# Of fp32 logits, relative to the largest; of attention by dtype, of values around one.
_TOLERANCE = 1e-4
_ATTENTION_TOLERANCE = {torch.float32: 1e-4, torch.float16: 8e-3, torch.bfloat16: 3e-2}
# Our error in half precision over plain transformers', the geometric mean over prompts.
_HALF_RATIO = 1.1
_HALF_PROMPTS = 16
_PROMPT_TOKENS = 90
_NEW_TOKENS = 16
# Fewer than the room that the engine takes ahead.
_SECOND_GO_TOKENS = 900
# Every tier and every stream at least once.
_WAYS = [
    EngineConfig(chunk_tokens=7, kv="device", hidden="device", lookup="off"),
    EngineConfig(chunk_tokens=7, kv="host", hidden="host", decode="host", lookup="off"),
    EngineConfig(chunk_tokens=7, kv="host", hidden="host", decode="stream", weights="stream"),
    EngineConfig(chunk_tokens=64, kv="host", hidden="device", decode="device", lookup="off"),
    EngineConfig(chunk_tokens=64, kv="disk", hidden="disk", decode="stream", lookup="off"),
    EngineConfig(chunk_tokens=512, kv="disk", hidden="host", decode="host", weights="stream"),
]


class _Checks:
    """Counts checks, and keeps the names of those that failed."""

    def __init__(self) -> None:
        self._done = 0
        self._wrong: list[str] = []
        self.worst = 0.0

    def that(self, name: str, error: float, allowed: float) -> None:
        """NaN is wrong too."""
        self._done += 1
        self.worst = error if math.isnan(error) else max(self.worst, error)
        if not error <= allowed:
            self._wrong.append(f"{name}: {error:.2e}, allowed {allowed:.0e}")

    def equal(self, name: str, ours: Sequence[int], theirs: Sequence[int]) -> None:
        self._done += 1
        if list(ours) != list(theirs):
            self._wrong.append(f"{name}: {list(ours)} is not {list(theirs)}")

    def result(self) -> dict[str, Any]:
        return {
            "checks": self._done,
            "wrong": len(self._wrong),
            "worst_error": self.worst,
            "what_is_wrong": self._wrong[:40],
        }


def check_attention(device: Device, *, is_brief: bool) -> dict[str, Any]:
    """Segment attention over segments on the device, the host and both, in every dtype."""
    checks = _Checks()
    dtypes = [torch.float32] if is_brief else list(_ATTENTION_TOLERANCE)
    widths = [64] if is_brief else [8, 64, 128, 256]
    shapes = [(1, 700), (5, 100), (64, 0), (64, 700)]
    features: list[tuple[float | None, bool]] = [(None, False), (5.0, False), (None, True)]
    cases = itertools.product(
        dtypes, widths, shapes, (None, 50), features, ("device", "host", "both")
    )
    for dtype, width, (new, past), window, (softcap, has_sinks), place in cases:
        torch.manual_seed(new + past + width)
        query = torch.randn(1, 8, new, width).to(dtype)
        keys, values = (torch.randn(1, 2, past + new, width).to(dtype) for _ in range(2))
        sinks = torch.randn(8) if has_sinks else None
        truth = dense(query.double(), keys.double(), values.double(), past, window, softcap, sinks)
        cuts = [0, *([past // 3, past] if past else []), past + new]
        segments = []
        for i, (start, end) in enumerate(itertools.pairwise(cuts)):
            is_host = place == "host" or (place == "both" and i % 2 == 0)
            home = torch.device("cpu") if is_host else device.torch_device
            segments.append(
                Segment(start, keys[:, :, start:end].to(home), values[:, :, start:end].to(home))
            )
        ours = segment_attention(
            query.to(device.torch_device),
            past,
            segments,
            scale=SCALE,
            window=window,
            softcap=softcap,
            sinks=None if sinks is None else sinks.to(device.torch_device),
        )
        name = f"{dtype} D={width} new={new} past={past} window={window} softcap={softcap} "
        name += f"sinks={has_sinks} on {place}"
        error = float((ours.cpu().double() - truth).abs().max())
        checks.that(name, error, _ATTENTION_TOLERANCE[dtype])
    return checks.result()


def check_family(device: Device, family: str, *, is_brief: bool) -> dict[str, Any]:
    """One family: prefill, reuse, decode and `memory_saving` in fp32; the error ratio in bf16."""
    checks = _Checks()
    model = make_model(family).to(device.torch_device)
    prompt = make_prompt(29 if family == "ministral3" else _PROMPT_TOKENS)
    other = [*prompt[:20], *make_prompt(9, seed=1)]
    truths = [(ids, plain_next_logits(model, ids).cpu()) for ids in (prompt, other, prompt)]
    greedy = plain_greedy(model, prompt, _NEW_TOKENS)
    for config in _WAYS[1::2] if is_brief else _WAYS:
        engine = Engine(model, config=config)
        name = f"{family} {_words(config)}"
        for ids, truth in truths:
            logits = engine.logits(ids).cpu()
            checks.that(f"{name}, {len(ids)} tokens", relative_error(logits, truth), _TOLERANCE)
        answer = engine.generate_ids(prompt, max_new_tokens=_NEW_TOKENS)
        checks.equal(f"{name}, greedy", answer, greedy)
        engine.close()
    # Text that repeats itself, so that drafts are offered and taken.
    repeating = make_prompt(9, seed=2) * 3
    repeated = plain_greedy(model, repeating, _NEW_TOKENS)
    for lookup in ("auto", "off"):
        engine = Engine(model, config=EngineConfig(chunk_tokens=7, kv="host", lookup=lookup))
        answer = engine.generate_ids(repeating, max_new_tokens=_NEW_TOKENS)
        checks.equal(f"{family} lookup={lookup}", answer, repeated)
    for kv, returns in (("device", False), ("host", False), ("host", True)):
        with memory_saving(model, chunk_tokens=16, kv=kv, kv_returns=returns):  # type: ignore[arg-type]
            answer = plain_greedy(model, prompt, _NEW_TOKENS)
        checks.equal(f"{family} memory_saving kv={kv} returns={returns}", answer, greedy)
    return {**checks.result(), "half_precision": _half_precision(device, family, is_brief=is_brief)}


def _words(config: EngineConfig) -> str:
    return (
        f"C={config.chunk_tokens} kv={config.kv} hidden={config.hidden} "
        f"decode={config.decode} weights={config.weights}"
    )


def _half_precision(device: Device, family: str, *, is_brief: bool) -> dict[str, Any]:
    """How far we and plain transformers in bf16 are from plain transformers in fp32."""
    truth_model = make_model(family)
    # Both start from the same rounded weights.
    truth_model.to(torch.bfloat16).float().to(device.torch_device)
    half_model = make_model(family).to(torch.bfloat16).to(device.torch_device)
    engine = Engine(half_model, config=_WAYS[1])
    logarithms = []
    for seed in range(2 if is_brief else _HALF_PROMPTS):
        prompt = make_prompt(29 if family == "ministral3" else 60 + seed, seed=seed)
        truth = plain_next_logits(truth_model, prompt).float().cpu()
        plain = plain_next_logits(half_model, prompt).float().cpu()
        ours = engine.logits(prompt).float().cpu()
        logarithms.append(math.log(_rms(ours - truth) / max(_rms(plain - truth), 1e-12)))
    ratio = math.exp(sum(logarithms) / len(logarithms))
    return {"error_over_plain": ratio, "allowed": _HALF_RATIO, "is_within": ratio <= _HALF_RATIO}


def _rms(difference: Tensor) -> float:
    return float(difference.square().mean().sqrt())


def families(*, is_brief: bool) -> Iterator[str]:
    """Those that are checked: all, or one of each kind."""
    yield from ["llama", "gemma2", "qwen3.5"] if is_brief else FAMILIES


def check_tiers(device: Device, *, is_brief: bool) -> dict[str, Any]:
    """A prompt long enough for copies to race with computation gives the same bits on every tier.

    The kernels and their shapes are the same wherever keys and hidden states wait, so a single
    differing bit means that something was read before it had arrived.
    """
    checks = _Checks()
    config = llama_config(is_tiny=is_brief, layers=4)
    if not is_brief:
        config.hidden_size, config.intermediate_size = 1024, 2048
        config.num_attention_heads, config.num_key_value_heads, config.head_dim = 8, 2, 128
    dtype = torch.float32 if is_brief else torch.bfloat16
    model = random_model(config, device.torch_device, dtype)
    tokens, chunk, repeats = (200, 64, 1) if is_brief else (16_421, 512, 4)
    ids = random_ids(config, tokens)
    logits_truth: Tensor | None = None
    answer_truth: list[int] | None = None
    for settings, repeat in itertools.product(_tier_settings(chunk), range(repeats)):
        engine = Engine(model, config=settings)
        # Read in two goes: the second finds the first's keys at home, and fetches them. The second
        # is short enough for the room taken ahead, so that keys lie in one piece on every tier.
        engine.logits(ids[: -min(tokens // 2, _SECOND_GO_TOKENS)])
        logits = engine.logits(ids).cpu()
        logits_truth = logits if logits_truth is None else logits_truth
        name = f"{_words(settings)}, {repeat}"
        checks.that(name, float((logits - logits_truth).abs().max()), 0.0)
        # On the host another kernel attends, so that its last bits are its own.
        if settings.kv == "device" or settings.decode != "host":
            answer = engine.generate_ids(ids, max_new_tokens=_NEW_TOKENS)
            answer_truth = answer if answer_truth is None else answer_truth
            checks.equal(f"{name}, answer", answer, answer_truth)
        engine.close()
    return checks.result()


def _tier_settings(chunk_tokens: int) -> Iterator[EngineConfig]:
    """On the device, and with everything that can move moving."""
    yield EngineConfig(chunk_tokens=chunk_tokens, kv="device", hidden="device", lookup="off")
    decodes: list[DecodeMode] = ["host", "device", "stream"]
    places: list[Weights] = ["device", "stream"]
    for decode, weights in itertools.product(decodes, places):
        yield EngineConfig(
            chunk_tokens=chunk_tokens,
            kv="host",
            hidden="host",
            decode=decode,
            weights=weights,
            lookup="off",
        )


def check_with_sanitizer(*, is_dry_run: bool, limit_seconds: float) -> dict[str, Any]:
    """The smallest checks again under compute-sanitizer, if it is here."""
    tool = shutil.which("compute-sanitizer")
    if tool is None and not is_dry_run:
        return {"is_present": False}
    command = [sys.executable, "-m", "benchmarks.gpu.sanitized"]
    if is_dry_run:
        command.append("--dry-run")
    else:
        command = [str(tool), "--tool", "memcheck", "--error-exitcode", "9", *command]
    # Without torch's own cache each tensor is a block that the tool can watch.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    try:
        run = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=limit_seconds,
            cwd=ROOT,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"is_present": True, "is_complete": False, "limit_seconds": limit_seconds}
    return {
        "is_present": tool is not None,
        "is_complete": True,
        "exit_code": run.returncode,
        "wrong": int(run.returncode != 0),
        "output": (run.stdout + run.stderr)[-2000:],
    }
