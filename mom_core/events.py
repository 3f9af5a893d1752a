"""What the engine says while it works: typed events, drawn one by one from a generator.

`Engine.generate` yields `PrefillProgress` while it reads the prompt, then one `Token` per new
token, then one `Finished`; and an `Adapted` wherever memory ran out and it went on with less.
`memory.meter.Meter` makes `MemorySample`s beside it. Closing the
generator cancels the run at the next mini-sequence and frees what it held.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]
AdaptedWhat = Literal["chunk_tokens", "hidden", "kv", "decode"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefillProgress:
    """How far the reading of a prompt has come.

    Args:
        prompt_tokens: all tokens of the prompt, S.
        reused_tokens: tokens at its beginning that were read before and are not read again.
        layer: layers finished, 0..`layers`.
        layers: L.
        token_layers_done: tokens x layers done.
        token_layers_total: tokens x layers to do: (prompt - reused) x L.
        fraction: share of the *work* done, 0..1, attention's growth with position counted in.
        elapsed_seconds: since reading began.
        eta_seconds: to the end of reading at the speed so far; None until there is one.
        resumed_fraction: share of the work that an interrupted reading had done already, 0..1;
            `fraction` begins there.
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
        token_id: its id.
        text: text that became certain with it: whole characters (grapheme clusters) only, so
            it may be empty, or hold the end of an earlier token. Never a special token's text.
        index: 0 for the first token of the answer.
    """

    token_id: int
    text: str
    index: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """The answer is complete.

    Args:
        reason: "stop" (the model ended it) or "length" (`max_new_tokens` or the window's end).
        prompt_tokens: S.
        reused_tokens: tokens of the prompt that did not have to be read.
        new_tokens: tokens generated, an end-of-text token included.
        decode_steps: how often the model was run for those after the first; fewer than they are
            where drafts by prompt lookup were accepted.
        prefill_seconds: from the call to the first token's logits.
        decode_seconds: from the first token's logits to the last token.
        resumed_fraction: share of the work of reading what was not reused that an
            interrupted reading had done already; 0 when nothing was resumed.
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
        """Tokens read (not those reused) per second of reading."""
        return (self.prompt_tokens - self.reused_tokens) / max(self.prefill_seconds, 1e-9)

    @property
    def tokens_per_step(self) -> float:
        """Tokens after the first, per run of the model; 1.0 where no draft was accepted."""
        return (self.new_tokens - 1) / self.decode_steps if self.decode_steps else 1.0

    @property
    def decode_tokens_per_second(self) -> float:
        """Tokens after the first, per second; 0.0 for an answer of one token.

        The first token falls out of the reading, so counting it would flatter the speed.
        """
        if self.new_tokens < 2:
            return 0.0
        return (self.new_tokens - 1) / max(self.decode_seconds, 1e-9)


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapted:
    """Memory ran out; the run went on from where it was, with less. The result is the same.

    Args:
        what: that was changed: the tokens of a chunk, the tier of the hidden states or of the
            keys and values, or the way in which these are attended to while answering.
        before: it was this: a number of tokens, or the name of a tier or way.
        after: and is this from now on.
        full: the memory that was full.
        phase: what the run was doing.
        at_layer: where reading went on, 0..L-1; None in the other phases.
        at_token: tokens of that layer, or of the context, that were done and kept.
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
    """One reading of the memory meter. All quantities in bytes.

    The device fields are None when there is no GPU: the model then computes in host memory,
    and nothing is made up for the device.

    Args:
        time_seconds: monotonic clock of the reading.
        device_name: the GPU's; None without one.
        device_used_bytes: in use on the whole card, other programs included.
        device_total_bytes: the card's memory.
        device_peak_bytes: this process's highest use of the card since the run began.
        device_reserved_bytes: what torch holds of it, tensors and what is kept for later ones.
        device_weights_bytes, device_kv_bytes, device_activations_bytes: this process's, by kind.
        host_used_bytes: resident memory of this process.
        host_available_bytes: what the machine could still give.
        host_total_bytes: the machine's memory, or the container's if that is less.
        host_peak_bytes: this process's highest resident memory since the run began.
        host_weights_bytes, host_kv_bytes, host_activations_bytes: this process's, by kind;
            activations are the run's working buffers (hidden states, staging).
        disk_weights_bytes, disk_kv_bytes, disk_activations_bytes: in files of the disk tier; those
            of their pages that are in memory are part of `host_used_bytes`.
        device_hidden_bytes, host_hidden_bytes: of the activations, the hidden states that wait
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
        """Resident memory that is none of weights, KV and activations (libraries, page, ...)."""
        known = self.host_weights_bytes + self.host_kv_bytes + self.host_activations_bytes
        return max(0, self.host_used_bytes - known)

    @property
    def disk_used_bytes(self) -> int:
        """Bytes in files of the disk tier."""
        return self.disk_weights_bytes + self.disk_kv_bytes + self.disk_activations_bytes

    @property
    def device_rest_bytes(self) -> int:
        """Used device memory that is none of weights, KV and activations."""
        known = self.device_weights_bytes + self.device_kv_bytes + self.device_activations_bytes
        return max(0, (self.device_used_bytes or 0) - known)
