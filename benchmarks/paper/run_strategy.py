"""One prompt, read and answered in one of the ways that are compared, timed phase by phase."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from benchmarks.device import Device
from mom_core import Engine, EngineConfig, Token, memory_saving
from mom_core.strategy import Strategy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Of every comparison, by the name it is shown under.
STRATEGIES: dict[str, Strategy] = {
    "standard": Strategy.named("standard"),
    "standard, all logits": Strategy.named("standard", logits="all"),
    "offload": Strategy.named("offload"),
    "mini-sequence": Strategy.named("mini-sequence"),
    "chunked 512": Strategy.named("chunked", chunk_tokens=512),
    "chunked 8192": Strategy.named("chunked", chunk_tokens=8192),
    "mom": Strategy.named("mom"),
    "layer-streaming": Strategy.named("layer-streaming"),
}


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Reading, or answering.

    Args:
        seconds: it took.
        device_peak_bytes: the most on the device meanwhile.
        reserved_peak_bytes: the same with what the allocator kept.
    """

    seconds: float
    device_peak_bytes: int
    reserved_peak_bytes: int


@dataclass(frozen=True, kw_only=True)
class StrategyRun:
    """What one run took and said.

    Args:
        prompt_tokens: S.
        prefill: up to the first token.
        decode: the tokens after it; None if there were none.
        token_ids: the answer.
        decode_failure: why the answer broke off; None if it did not.
    """

    prompt_tokens: int
    prefill: Phase
    decode: Phase | None
    token_ids: list[int]
    decode_failure: str | None = None

    @property
    def prefill_tokens_per_second(self) -> float:
        """Of reading."""
        return self.prompt_tokens / self.prefill.seconds

    @property
    def decode_tokens_per_second(self) -> float | None:
        """Of answering; the first token fell out of the reading."""
        if self.decode is None:
            return None
        return (len(self.token_ids) - 1) / self.decode.seconds

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **asdict(self),
            "prefill_tokens_per_second": self.prefill_tokens_per_second,
            "decode_tokens_per_second": self.decode_tokens_per_second,
        }


class _Phases:
    """A stopwatch and a gauge that restart with each phase."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._begin()

    def _begin(self) -> None:
        self._device.synchronize()
        self._device.reset_peak()
        self._started = time.perf_counter()

    def end(self) -> Phase:
        self._device.synchronize()
        phase = Phase(
            seconds=time.perf_counter() - self._started,
            device_peak_bytes=self._device.peak_bytes(),
            reserved_peak_bytes=self._device.reserved_peak_bytes(),
        )
        self._begin()
        return phase


def run_strategy(
    model: PreTrainedModel,
    strategy: Strategy,
    token_ids: Sequence[int],
    *,
    new_tokens: int,
    device: Device,
    engine_config: EngineConfig | None = None,
) -> StrategyRun:
    """Reads a prompt and answers greedily.

    Args:
        model: on the device.
        strategy: how.
        token_ids: the prompt.
        new_tokens: length of the answer, at least 1.
        device: where the model is.
        engine_config: settings of the engine for "layer-streaming" beyond the strategy's own.
    """
    if strategy.name == "layer-streaming":
        config = engine_config or engine_settings(strategy)
        return _run_engine(model, config, token_ids, new_tokens, device)
    return _run_transformers(model, strategy, token_ids, new_tokens, device)


def engine_settings(strategy: Strategy) -> EngineConfig:
    """The engine's settings for "layer-streaming": nothing is left to "auto"."""
    return EngineConfig(
        chunk_tokens=strategy.chunk_tokens,
        kv=strategy.kv,
        hidden=strategy.hidden,
        decode="host",
        weights=strategy.weights,
        lookup="off",
    )


def _run_engine(
    model: PreTrainedModel,
    config: EngineConfig,
    token_ids: Sequence[int],
    new_tokens: int,
    device: Device,
) -> StrategyRun:
    engine = Engine(model, config=config)
    try:
        phases = _Phases(device)
        prefill: Phase | None = None
        answer: list[int] = []
        for event in engine.generate(token_ids, max_new_tokens=new_tokens):
            if isinstance(event, Token):
                answer.append(event.token_id)
                prefill = prefill or phases.end()
        if prefill is None:
            raise RuntimeError("the engine gave no token")
        return _finished(token_ids, prefill, answer, phases)
    finally:
        # Streamed weights go back where they were.
        engine.close()


@torch.no_grad()
def _run_transformers(
    model: PreTrainedModel,
    strategy: Strategy,
    token_ids: Sequence[int],
    new_tokens: int,
    device: Device,
) -> StrategyRun:
    ids = torch.tensor([list(token_ids)], device=device.torch_device)
    tokens = ids.shape[1]
    chunk = strategy.chunk_tokens if strategy.name == "chunked" else tokens
    # "All logits" is the paper's own baseline; today nobody asks for them.
    keep = 0 if strategy.logits == "all" else 1
    is_plain = strategy.name in ("standard", "chunked")
    cache: Any = DynamicCache(config=model.config) if is_plain else None
    with _method(model, strategy, tokens):
        phases = _Phases(device)
        for start in range(0, tokens, chunk):
            output = model(
                input_ids=ids[:, start : start + chunk],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=keep,
            )
            cache = output.past_key_values
        answer = [_likeliest(output.logits)]
        # The logits of a long prompt must not wait beside the answer.
        del output
        prefill = phases.end()
        failure: str | None = None
        try:
            while len(answer) < new_tokens:
                output = model(
                    input_ids=torch.tensor([answer[-1:]], device=device.torch_device),
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
                answer.append(_likeliest(output.logits))
        except torch.OutOfMemoryError as error:
            # The reading was long, and its figures stand.
            failure = str(error).splitlines()[0]
    return _finished(token_ids, prefill, answer, phases, failure)


def _method(
    model: PreTrainedModel, strategy: Strategy, tokens: int
) -> AbstractContextManager[object]:
    """The parts of the paper that a strategy uses."""
    if strategy.name in ("standard", "chunked"):
        return nullcontext()
    is_split = strategy.name in ("mini-sequence", "mom")
    return memory_saving(
        model,
        chunk_tokens=strategy.chunk_tokens if is_split else tokens,
        kv="host" if strategy.kv == "host" else "device",
        kv_returns=strategy.kv == "host" and strategy.decode == "device",
    )


def _likeliest(logits: Tensor) -> int:
    return int(logits[0, -1].argmax())


def _finished(
    token_ids: Sequence[int],
    prefill: Phase,
    answer: list[int],
    phases: _Phases,
    failure: str | None = None,
) -> StrategyRun:
    return StrategyRun(
        prompt_tokens=len(token_ids),
        prefill=prefill,
        decode=phases.end() if len(answer) > 1 and failure is None else None,
        token_ids=answer,
        decode_failure=failure,
    )
