"""Settings of the engine and of sampling: small frozen values, checked when they are made.

They are built at the edge (command line, page, script) and passed as values; the engine reads
no environment variable and keeps no global.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from mom_core.errors import InvalidSetting

TierName = Literal["device", "host", "disk"]
KVTier = Literal["auto", "device", "host", "disk"]
HiddenTier = Literal["auto", "device", "host", "disk"]
DecodeMode = Literal["auto", "device", "host", "stream"]
Weights = Literal["auto", "device", "stream"]
Lookup = Literal["auto", "off"]
Extension = Literal["off", "yarn"]


def _check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InvalidSetting(f"{name} is {value!r}; it must be one of {', '.join(allowed)}.")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Where the engine keeps things and how finely it cuts the prompt.

    Args:
        chunk_tokens: C, tokens per mini-sequence: any whole number from 1, or "auto".
        kv: tier of the keys and values once a layer is done: "device", "host", "disk", or "auto".
        hidden: tier of the hidden states `[S, E]` between layers: the same.
        decode: how keys and values that lie on the host or the disk are attended to while an
            answer is written: brought to the "device" once, by the CPU where they lie ("host"),
            or brought to the device layer by layer for each token ("stream"). "auto": "device"
            where there is a GPU that has room for them, else "host".
        weights: "device" keeps all weights where the model computes; "stream" keeps those of the
            layers on the host (on the disk, if `host_memory` has no room for them) and brings
            each layer's when it runs; "auto" streams what does not fit the device.
        host_memory: bytes of host memory this process may hold, libraries included; None for
            what the machine can give. "auto" keeps to it.
        device_memory: bytes of the device's memory, in the same way. Without a GPU the device
            is the host, and the smaller of the two holds.
        scratch_folder: where the files of the disk tier lie; None is a folder in the user's cache.
        lookup: "auto" lets answers that quote the context take several tokens in a step, with the
            same result; "off" runs the model once for each token.
        context_tokens: the longest context that is taken; None is what the model was made for.
            More than that needs `extend`.
        extend: "yarn" stretches the model's rotary positions, so that it reads up to
            `context_tokens`. It then answers short prompts otherwise, too.

    Raises:
        InvalidSetting: a value is not allowed; the message names it and the allowed ones.
    """

    chunk_tokens: int | Literal["auto"] = "auto"
    kv: KVTier = "auto"
    hidden: HiddenTier = "auto"
    decode: DecodeMode = "auto"
    weights: Weights = "auto"
    host_memory: int | None = None
    device_memory: int | None = None
    scratch_folder: Path | None = None
    lookup: Lookup = "auto"
    context_tokens: int | None = None
    extend: Extension = "off"

    def __post_init__(self) -> None:
        if self.chunk_tokens != "auto" and not (
            _is_int(self.chunk_tokens) and int(self.chunk_tokens) >= 1
        ):
            raise InvalidSetting(
                f"chunk_tokens is {self.chunk_tokens!r}; "
                'it must be a whole number of at least 1, or "auto".'
            )
        _check_choice("kv", self.kv, get_args(KVTier))
        _check_choice("hidden", self.hidden, get_args(HiddenTier))
        _check_choice("weights", self.weights, get_args(Weights))
        _check_choice("decode", self.decode, get_args(DecodeMode))
        _check_choice("lookup", self.lookup, get_args(Lookup))
        for name in ("host_memory", "device_memory"):
            value = getattr(self, name)
            if value is not None and not (_is_int(value) and value >= 1):
                raise InvalidSetting(
                    f"{name} is {value!r}; it must be a whole number of bytes, at least 1, or None "
                    "for what the machine can give."
                )
        if self.context_tokens is not None and not (
            _is_int(self.context_tokens) and self.context_tokens >= 1
        ):
            raise InvalidSetting(
                f"context_tokens is {self.context_tokens!r}; it must be a whole number of at least "
                "1, or None for what the model was made for."
            )
        _check_choice("extend", self.extend, get_args(Extension))
        if self.extend != "off" and self.context_tokens is None:
            raise InvalidSetting(
                f"extend is {self.extend!r}, and context_tokens is not set; say how many tokens "
                "the context is to have."
            )


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How the next token is chosen from its logits.

    Args:
        temperature: 0 takes the most likely token (greedy); above 0 samples.
        top_k: keep the k most likely tokens; 0 keeps all.
        top_p: keep the smallest set of tokens whose probabilities sum to this; 1 keeps all.
        min_p: drop tokens less likely than this share of the most likely one; 0 keeps all.
        repetition_penalty: above 1 makes tokens already in the context less likely; 1 is off.
        seed: makes sampling repeatable; None draws a new seed for each answer.

    Raises:
        InvalidSetting: a value is not allowed; the message names it and the allowed range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        def check(name: str, is_allowed: bool, allowed: str) -> None:
            if not is_allowed:
                raise InvalidSetting(f"{name} is {getattr(self, name)!r}; it must be {allowed}.")

        def number(name: str) -> float:
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            check(name, is_number and math.isfinite(value), "a finite number")
            return float(value)

        check("temperature", number("temperature") >= 0, "0 (greedy) or more")
        check("top_k", _is_int(self.top_k) and self.top_k >= 0, "a whole number of 0 or more")
        check("top_p", 0 < number("top_p") <= 1, "above 0 and at most 1")
        check("min_p", 0 <= number("min_p") <= 1, "between 0 and 1")
        check("repetition_penalty", number("repetition_penalty") > 0, "above 0 (1 is off)")
        check(
            "seed",
            self.seed is None or (_is_int(self.seed) and self.seed >= 0),
            "a whole number of 0 or more, or None",
        )

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0
