"""What a person may set on the page, and what it means to the engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mom_core.config import EngineConfig, HiddenTier, KVTier, SamplingConfig, Weights
from mom_core.errors import InvalidSetting
from mom_core.sizes import parse_size

OFFLOADS: dict[str, tuple[KVTier, HiddenTier]] = {
    "auto": ("auto", "auto"),
    "off": ("device", "device"),
    "KV to host": ("host", "device"),
    "KV + hidden to host": ("host", "host"),
    "KV + hidden to disk": ("disk", "disk"),
}

# A choice of one name for several settings.
PRESETS: dict[str, dict[str, Any]] = {
    "auto": {"offload": "auto", "chunk": "auto", "weights": "auto"},
    "fastest": {"offload": "off", "chunk": "auto", "weights": "device"},
    "least memory": {"offload": "KV + hidden to disk", "chunk": "256", "weights": "auto"},
}
SYSTEM_CHARACTERS = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Settings that hold from the next question on.

    Args:
        offload: a key of `OFFLOADS`.
        chunk: "auto" or a whole number.
        weights: where the layers' weights are kept.
        device_memory: such as "24GiB"; "" for what is free.
        host_memory: the same of host memory.
        max_new_tokens: the longest answer.
        temperature: 0 always takes the likeliest token.
        top_p: keep the smallest set of tokens whose probabilities sum to this.
        top_k: keep the k likeliest tokens; 0 keeps all.
        repetition_penalty: above 1 makes tokens already there less likely.
        seed: "" or a whole number that makes sampling repeatable.
        system: the system prompt; "" for the one that names the documents.
        fits_best_parts: whether parts are chosen by the question when there is too much.
    """

    offload: str = "auto"
    chunk: str = "auto"
    weights: Weights = "auto"
    device_memory: str = ""
    host_memory: str = ""
    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: str = ""
    system: str = ""
    fits_best_parts: bool = False

    def check(self, base: EngineConfig) -> None:
        """Raises `InvalidSetting` with a sentence for the first value that is not allowed."""
        self.engine_config(base)
        self.sampling()
        if self.max_new_tokens < 1:
            raise InvalidSetting(
                f"The limit of new tokens is {self.max_new_tokens}; it must be a whole number of "
                "at least 1."
            )
        if len(self.system) > SYSTEM_CHARACTERS:
            raise InvalidSetting(
                f"The system prompt has {len(self.system):,} characters; at most "
                f"{SYSTEM_CHARACTERS:,} are allowed. Put long texts in as documents."
            )

    def engine_config(self, base: EngineConfig) -> EngineConfig:
        """These settings put into others.

        Raises:
            InvalidSetting: one is not allowed.
        """
        if self.offload not in OFFLOADS:
            raise InvalidSetting(
                f"offload is {self.offload!r}; it must be one of {', '.join(OFFLOADS)}."
            )
        kv, hidden = OFFLOADS[self.offload]
        chunk = self.chunk.strip().replace(",", "")
        if chunk != "auto" and not (chunk.isascii() and chunk.isdigit() and int(chunk) >= 1):
            raise InvalidSetting(
                f"The chunk size is {self.chunk!r}; it must be auto or a whole number of at least "
                "1, such as 1024."
            )
        return replace(
            base,
            chunk_tokens="auto" if chunk == "auto" else int(chunk),
            kv=kv,
            hidden=hidden,
            weights=self.weights,
            device_memory=_bytes("device memory", self.device_memory, base.device_memory),
            host_memory=_bytes("host memory", self.host_memory, base.host_memory),
        )

    def sampling(self) -> SamplingConfig:
        """How answers are drawn.

        Raises:
            InvalidSetting: a value is not allowed.
        """
        seed = self.seed.strip()
        if seed and not (seed.isascii() and seed.isdigit()):
            raise InvalidSetting(
                f"The seed is {self.seed!r}; leave it empty or give a whole number of 0 or more."
            )
        return SamplingConfig(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            repetition_penalty=self.repetition_penalty,
            seed=int(seed) if seed else None,
        )


def _bytes(name: str, text: str, default: int | None) -> int | None:
    if not text.strip():
        return default
    try:
        return parse_size(text)
    except InvalidSetting as fault:
        raise InvalidSetting(f"The {name} is {text!r}: {fault}") from fault
