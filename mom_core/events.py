"""Typed events that report what the engine does, yielded by a generator.

`Engine.generate` yields `PrefillProgress` while it reads the prompt, then one `Token` for each new
token, then one `Finished`. Whenever memory ran out and the run continued with less, it yields
`Adapted`. Closing the generator cancels the run at the next chunk, and frees what it held.
`MemorySample`s do not come from the generator but from `mom_core.hardware.meter.Meter`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]
AdaptedWhat = Literal["chunk_tokens", "hidden", "kv", "decode"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefillProgress:
    """How much of a prompt has been read.

    Args:
        prompt_tokens: tokens in the prompt, S.
        reused_tokens: tokens at the start of the prompt that are reused, not read again.
        layer: number of layers finished, 0 to `layers`.
        layers: number of layers, L.
        token_layers_done: tokens x layers done so far.
        token_layers_total: tokens x layers to do in all: (prompt - reused) x L.
        fraction: share of the work done, 0 to 1; it allows for attention growing with position.
        elapsed_seconds: time since reading began.
        eta_seconds: time until reading ends, at the speed so far; None until a speed is known.
        resumed_fraction: share of the work that an interrupted reading had already done, 0 to 1;
            `fraction` starts there.
    """

    prompt_tokens: int
    reused_tokens: int
    layer: int
    layers: int
    token_layers_done: int
    token_layers_total: int
    fraction: float
    elapsed_seconds: float
    eta_seconds: float | None
    resumed_fraction: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """One new token.

    Args:
        token_id: id of the token.
        text: text that became certain with this token, in whole characters (grapheme clusters).
            It may be empty, or include the end of an earlier token, and never shows a special
            token.
        index: position in the answer, from 0.
    """

    token_id: int
    text: str
    index: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """The answer is complete.

    Args:
        reason: "stop" if the model ended the answer, "length" at `max_new_tokens` or at the end of
            the context window.
        prompt_tokens: tokens in the prompt, S.
        reused_tokens: tokens of the prompt that did not have to be read.
        new_tokens: tokens generated, including an end-of-text token.
        decode_steps: runs of the model for the tokens after the first; fewer than those tokens if
            drafts from prompt lookup were accepted.
        prefill_seconds: time from the call to the first token's logits.
        decode_seconds: time from the first token's logits to the last token.
        resumed_fraction: share of the work of reading that an interrupted reading had already
            done, 0 to 1; tokens that were reused do not count as work.
    """

    reason: FinishReason
    prompt_tokens: int
    reused_tokens: int
    new_tokens: int
    decode_steps: int
    prefill_seconds: float
    decode_seconds: float
    resumed_fraction: float = 0.0

    @property
    def prefill_tokens_per_second(self) -> float:
        """Tokens read, without those reused, per second of reading."""
        return (self.prompt_tokens - self.reused_tokens) / max(self.prefill_seconds, 1e-9)

    @property
    def tokens_per_step(self) -> float:
        """Tokens after the first per run of the model; 1.0 if no draft was accepted."""
        return (self.new_tokens - 1) / self.decode_steps if self.decode_steps else 1.0

    @property
    def decode_tokens_per_second(self) -> float:
        """Tokens after the first, per second; 0.0 for an answer of one token.

        Reading already produces the first token, so counting it would overstate the speed.
        """
        if self.new_tokens < 2:
            return 0.0
        return (self.new_tokens - 1) / max(self.decode_seconds, 1e-9)


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapted:
    """Memory ran out, and the run continued from where it was, with less. The result is the same.

    Args:
        what: what was changed: the tokens in a chunk, the tier of the hidden states, the tier of
            the keys and values, or how these are used while answering.
        before: the old value: a number of tokens, or the name of a tier or decode mode.
        after: the new value.
        full: the memory that was full.
        phase: what the run was doing; "move" is moving keys and values to another tier.
        at_layer: layer in which reading continued, 0 to L-1; None in other phases.
        at_token: number of tokens in that layer, or in the context, that were done and kept.
    """

    what: AdaptedWhat
    before: int | str
    after: int | str
    full: Literal["device", "host"]
    phase: Literal["prefill", "decode", "move"]
    at_layer: int | None
    at_token: int


ReadingEvent = PrefillProgress | Adapted
Event = PrefillProgress | Adapted | Token | Finished


@dataclass(frozen=True, kw_only=True, slots=True)
class MemorySample:
    """One reading of the memory meter, in bytes.

    Without a GPU, the model computes in host memory and the device fields are None or 0.

    Args:
        time_seconds: time of the reading on the monotonic clock.
        device_name: name of the GPU; None without one.
        device_used_bytes: memory in use on the whole card, including by other programs.
        device_total_bytes: memory of the card.
        device_peak_bytes: this process's highest use of the card since the run began.
        device_reserved_bytes: memory that torch holds on the card: tensors, and what it caches for
            later ones.
        device_weights_bytes, device_kv_bytes, device_activations_bytes: this process's, by kind.
        host_used_bytes: resident memory of this process.
        host_available_bytes: memory that the machine can still provide.
        host_total_bytes: memory of the machine, or of the container if its limit is lower.
        host_peak_bytes: this process's highest resident memory since the run began.
        host_weights_bytes, host_kv_bytes, host_activations_bytes: this process's, by kind;
            activations are the run's working buffers (hidden states, staging).
        disk_weights_bytes, disk_kv_bytes, disk_activations_bytes: bytes in files of the disk tier;
            their pages that are in memory also count in `host_used_bytes`.
        device_hidden_bytes, host_hidden_bytes: the part of the activations that is hidden states
            between two layers.
    """

    time_seconds: float
    device_name: str | None
    device_used_bytes: int | None
    device_total_bytes: int | None
    device_peak_bytes: int | None
    device_weights_bytes: int
    device_kv_bytes: int
    device_activations_bytes: int
    host_used_bytes: int
    host_available_bytes: int
    host_total_bytes: int
    host_peak_bytes: int
    host_weights_bytes: int
    host_kv_bytes: int
    host_activations_bytes: int
    device_reserved_bytes: int | None = None
    disk_weights_bytes: int = 0
    disk_kv_bytes: int = 0
    disk_activations_bytes: int = 0
    device_hidden_bytes: int = 0
    host_hidden_bytes: int = 0

    @property
    def host_rest_bytes(self) -> int:
        """Resident memory that is not weights, KV or activations: libraries, the page, etc."""
        known = self.host_weights_bytes + self.host_kv_bytes + self.host_activations_bytes
        return max(0, self.host_used_bytes - known)

    @property
    def disk_used_bytes(self) -> int:
        """Bytes in files of the disk tier."""
        return self.disk_weights_bytes + self.disk_kv_bytes + self.disk_activations_bytes

    @property
    def device_rest_bytes(self) -> int:
        """Device memory in use that is not weights, KV or activations."""
        known = self.device_weights_bytes + self.device_kv_bytes + self.device_activations_bytes
        return max(0, (self.device_used_bytes or 0) - known)
