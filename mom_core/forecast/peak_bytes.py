"""The forecast of memory: bytes on each tier for a model, a length and a strategy, in closed form.

A run's peak is the highest of a few moments of one layer (its norm, the rotation of queries and
keys, attention, the MLP), each a sum of named terms; docs/memory_model.md derives them. They agree
with the simulation within 2 % (tests/unit/test_plan.py). The one thing taken from a simulated run
is what a recurrent layer works with, for that is a loop of transformers and no formula.

Source: ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from mom_core.config import TierName
from mom_core.forecast.recurrent import RecurrentBytes
from mom_core.forecast.shape import ModelShape
from mom_core.forecast.tracker import TierBytes
from mom_core.generate.prefill import KEPT_CALL_TOKENS
from mom_core.kv.decode_kv import last_tokens
from mom_core.kv.tiers import pinned_piece_tokens
from mom_core.strategy import Strategy

Terms = dict[str, int]
# Room that a store without a reservation adds (`kv/store.py`).
_SPARE_TOKENS = 256
_SPARE_SHARE = 16
_FP32 = 4
_INT64 = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Held(TierBytes[str]):
    """What a run holds at its highest moment in one phase, by term.

    Args:
        moment: what it is doing then.
    """

    moment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryForecast:
    """Peaks of one strategy.

    Args:
        strategy: the way.
        tokens: S, of the prompt.
        prefill: while reading.
        decode: while answering.
    """

    strategy: Strategy
    tokens: int
    prefill: Held
    decode: Held

    @property
    def device_peak_bytes(self) -> int:
        """The most on the device, reading and answering."""
        return max(self.prefill.device_bytes, self.decode.device_bytes)

    @property
    def host_peak_bytes(self) -> int:
        """The most on the host, reading and answering."""
        return max(self.prefill.host_bytes, self.decode.host_bytes)

    @property
    def disk_bytes(self) -> int:
        """The most on the disk, reading and answering."""
        return max(self.prefill.disk_bytes, self.decode.disk_bytes)

    @property
    def one_memory_peak_bytes(self) -> int:
        """The most on device and host together, where they are one memory."""
        return max(held.device_bytes + held.host_bytes for held in (self.prefill, self.decode))

    def by_tier(self, *, is_one_memory: bool) -> dict[TierName, Terms]:
        """Of each tier the terms of the phase in which it holds most.

        Args:
            is_one_memory: whether the device is the host, which then has the terms of both.
        """
        phases = (self.prefill, self.decode)

        def highest(terms: Iterable[Terms]) -> Terms:
            return max(terms, key=lambda of: sum(of.values()))

        tiers: dict[TierName, Terms] = {
            "host": highest(held.host for held in phases),
            "disk": highest(held.disk for held in phases),
        }
        if is_one_memory:
            return {**tiers, "host": highest(_added(held.device, held.host) for held in phases)}
        return {"device": highest(held.device for held in phases), **tiers}


def forecast_memory(
    shape: ModelShape, recurrent: RecurrentBytes | None, tokens: int, strategy: Strategy
) -> MemoryForecast:
    """The peaks of a run.

    Args:
        shape: the model's numbers.
        recurrent: what a recurrent layer holds; None if the model has none.
        tokens: S, at least one.
        strategy: the way it runs.
    """
    run = _Forecast(shape, recurrent, tokens, strategy)
    ways: dict[str, Callable[[], tuple[Held, Held]]] = {
        "layer-streaming": run.layer_streaming,
        "standard": run.standard,
        "chunked": run.chunked,
    }
    prefill, decode = ways.get(strategy.name, run.memory_saving)()
    return MemoryForecast(strategy=strategy, tokens=tokens, prefill=prefill, decode=decode)


def _added(terms: Terms, others: Terms) -> Terms:
    return {name: terms.get(name, 0) + others.get(name, 0) for name in {**terms, **others}}


class _Forecast:
    """The terms for one model, length and strategy. Widths are in elements, the rest in bytes."""

    def __init__(
        self,
        shape: ModelShape,
        recurrent: RecurrentBytes | None,
        tokens: int,
        strategy: Strategy,
    ) -> None:
        self.shape = shape
        self.recurrent = recurrent
        self.tokens = tokens
        self.strategy = strategy
        self.width = shape.dtype_bytes
        self.query = shape.heads * shape.head_dim
        self.keys = shape.kv_heads * shape.head_dim

    # Whole strategies.

    def standard(self) -> tuple[Held, Held]:
        """Plain transformers, the prompt at once: `[S, ...]` everywhere."""
        moments = {
            name: self._plain(kv_layers, working, self.tokens)
            for name, (kv_layers, working) in self._layer_moments(self.tokens, self.tokens).items()
        }
        if self.strategy.logits == "all":
            moments["logits"] = self._plain(
                self.shape.kv_layers,
                {"logits": self.tokens * self.shape.vocabulary * self.width, "hidden": 0},
                self.tokens,
            )
        return self._highest(moments), self._plain_decode()

    def chunked(self) -> tuple[Held, Held]:
        """Plain transformers, chunk by chunk: each chunk passes all layers."""
        chunk = min(self.strategy.chunk_tokens, self.tokens)
        full, rest = divmod(self.tokens, chunk)
        moments: dict[str, Terms] = {}
        # The last chunk sees most keys, the last full one has most rows.
        for rows, seen in {(chunk, full * chunk), (rest or chunk, self.tokens)}:
            layer = self._layer_moments(rows, rows)
            if seen > rows:
                layer["attention"] = (self.shape.kv_layers, self._masked_attention(rows, seen))
            for name, (kv_layers, working) in layer.items():
                held = self._plain(kv_layers, working, rows, seen)
                # Layers that have not run yet hold what earlier chunks left.
                later = self.shape.kv_layers - kv_layers
                held["KV"] += later * (seen - rows) * self.shape.layer_kv_bytes_per_token
                if seen > rows:
                    # One bool for each pair, made before the first layer.
                    held["mask"] = rows * seen
                moments[f"{name} of a chunk of {rows}"] = held
        return self._highest(moments), self._plain_decode()

    def memory_saving(self) -> tuple[Held, Held]:
        """The paper's parts around plain transformers: `offload`, `mini-sequence`, `mom`."""
        strategy, shape = self.strategy, self.shape
        is_split = strategy.name in ("mini-sequence", "mom")
        rows = min(strategy.chunk_tokens, self.tokens) if is_split else self.tokens
        stored = self._kv_without_reservation(strategy.kv)
        moments = {}
        for name, (kv_layers, working) in self._layer_moments(self.tokens, rows).items():
            moments[name] = {
                **self._plain_fixed(self.tokens),
                **working,
                "KV": kv_layers * stored if strategy.kv == "device" else 0,
            }
        host = {"token ids": self.tokens * _INT64}
        if strategy.kv == "host":
            host["KV"] = shape.kv_layers * stored
        prefill = self._highest(moments, host)
        if strategy.decode == "host":
            return prefill, self._held("decode", self._decode_terms(), host)
        returned = (self.tokens + _SPARE_TOKENS) * shape.layer_kv_bytes_per_token
        on_device = stored if strategy.kv == "device" else returned
        device = {**self._decode_terms(), "KV": shape.kv_layers * on_device}
        # What returns to the device leaves the host layer by layer.
        return prefill, self._held("decode", device, host)

    def layer_streaming(self) -> tuple[Held, Held]:
        """The engine: one layer at a time, a chunk at a time."""
        strategy, shape = self.strategy, self.shape
        rows = min(strategy.chunk_tokens, self.tokens)
        per_token = shape.layer_kv_bytes_per_token
        stored = self._kv_with_reservation()
        hidden = self.tokens * shape.hidden * self.width
        tiers: dict[str, Terms] = {
            "device": {
                "weights": shape.weights_bytes,
                "states": self._states_bytes(),
                "rotary tables": self._kept_tables(rows),
            },
            "host": {"token ids": self.tokens * _INT64},
            "disk": {},
        }
        tiers[strategy.hidden]["hidden states"] = hidden
        if strategy.kv != "device":
            tiers[strategy.kv]["KV"] = shape.kv_layers * stored
        if strategy.stages_kv:
            tiers["device"]["one layer's KV"] = self.tokens * per_token
        if strategy.weights == "stream":
            tiers["device"]["weights"] = self._streamed_weights()
            tiers[strategy.weights_home]["weights"] = sum(shape.layers_bytes)
        working = {
            "norm": self._norm(),
            "rotation": shape.hidden + self._rotation(),
            "attention": shape.hidden + self._merged_attention(rows),
            "MLP": 2 * shape.hidden + self._mlp(),
        }
        bytes_of = {name: rows * elements * self.width for name, elements in working.items()}
        bytes_of["attention"] += 4 * rows * shape.heads * _FP32
        if self.recurrent is not None:
            bytes_of["recurrent layer"] = self.recurrent.working_bytes(
                rows, is_first=rows == self.tokens
            )
        moments: dict[str, Terms] = {}
        for name, n_bytes in bytes_of.items():
            for place, (kv_layers, copies) in self._places_of_a_layer(rows).items():
                # In the last layer, all chunks but the last only store keys and values.
                if place == "last layer" and name in ("attention", "MLP"):
                    continue
                terms = {
                    **tiers["device"],
                    "chunks of hidden states": copies * shape.hidden * self.width,
                    "layer's working memory": n_bytes,
                    "KV": kv_layers * stored if strategy.kv == "device" else 0,
                }
                if name == "recurrent layer":
                    # Before the first layer with keys and values there are none.
                    terms["KV"] = min(terms["KV"], self._kv_before_recurrent() * stored)
                    if not self._kv_before_recurrent():
                        terms.pop("one layer's KV", None)
                moments[f"{name}, {place}"] = terms
        prefill = self._highest(moments, tiers["host"], tiers["disk"])
        after: dict[str, Terms] = {"device": self._decode_terms(), "host": {}, "disk": {}}
        after[strategy.kv]["KV"] = shape.kv_layers * stored
        if strategy.kv != "device" and strategy.decode != "host":
            after["device"]["KV"] = self._kv_for_the_answer()
        if strategy.weights == "stream":
            after["device"]["weights"] = self._streamed_weights()
            after[strategy.weights_home]["weights"] = sum(shape.layers_bytes)
        return prefill, self._held("decode", after["device"], after["host"], after["disk"])

    def _places_of_a_layer(self, rows: int) -> dict[str, tuple[int, int]]:
        """For first, inner and last layer: layers with KV, and rows of hidden states in flight.

        In flight are the chunk, the next one on its way, and what the chunk before gave until
        it is copied. Where hidden states wait in the device's own memory all are views, but for
        the embeddings of the first layer.
        """
        layers = self.shape.kv_layers
        full, rest = divmod(self.tokens, rows)
        before = rows if full > 1 else 0
        following = rows if full > 2 else rest
        if self.strategy.hidden == "device" or self.strategy.device_type == "cpu":
            return {
                "first layer": (1, rows),
                "inner layer": (layers - 1, 0),
                "last layer": (layers, 0),
            }
        return {
            "first layer": (1, rows + before),
            "inner layer": (layers - 1, rows + following + before),
            "last layer": (layers, rows),
        }

    # Moments of a layer, for a prompt that passes it at once.

    def _layer_moments(self, tokens: int, mlp_rows: int) -> dict[str, tuple[int, Terms]]:
        """For each moment, how many layers have stored KV, and what the layer works with.

        Args:
            tokens: that pass the layer.
            mlp_rows: that pass the MLP at once.
        """
        shape, width = self.shape, self.width
        # The embeddings and the layer's input are held outside the layer.
        held = 2 * shape.hidden
        all_layers = shape.kv_layers
        moments = {
            "norm": (all_layers, tokens * (held + shape.hidden + self._norm()) * width),
            "rotation": (
                all_layers - 1,
                tokens * (held + shape.hidden + self._rotation()) * width,
            ),
            "attention": (
                all_layers,
                tokens * (held + shape.hidden + self._attention()) * width,
            ),
            "MLP": (
                all_layers,
                (
                    tokens * (held + 2 * shape.hidden)
                    + mlp_rows * self._mlp()
                    + (tokens * shape.hidden if mlp_rows < tokens else 0)
                )
                * width,
            ),
        }
        if self.recurrent is not None:
            moments["recurrent layer"] = (
                self._kv_before_recurrent(),
                tokens * held * width
                + self.recurrent.working_bytes(tokens, is_first=tokens == self.tokens),
            )
        return {
            name: (kv_layers, {"hidden states and activations": n_bytes})
            for name, (kv_layers, n_bytes) in moments.items()
        }

    def _kv_before_recurrent(self) -> int:
        """Layers with keys and values before the last recurrent one."""
        last = max(self.shape.recurrent)
        return last - sum(index < last for index in self.shape.recurrent)

    def _norm(self) -> int:
        """The input in fp32 and its square (or its scaled form): two `[., E]` in fp32."""
        return 2 * self.shape.hidden * _FP32 // self.width

    def _rotation(self) -> int:
        """Queries, their product with the cosine, their half turn, its product with the sine."""
        shape = self.shape
        rotated = round(3 * shape.rotary_share * self.query)
        gate = self.query if shape.has_gated_query else 0
        rotation = self.query + rotated + 2 * self.keys + gate
        if not shape.has_head_norm:
            return rotation
        # Before the keys exist, each head's queries are normed in fp32 beside the projection's.
        normed = self.query * (2 if shape.has_gated_query else 1) + gate
        return max(rotation, normed + 2 * self.query * _FP32 // self.width)

    def _attention(self) -> int:
        """Queries, keys and values, and the output of a fused kernel."""
        gate = self.query if self.shape.has_gated_query else 0
        return 2 * self.query + 2 * self.keys + gate

    def _merged_attention(self, rows: int) -> int:
        """The same over two segments: two outputs, and their merge in fp32."""
        if rows == self.tokens:
            return self._attention()
        return self._attention() + self.query + 3 * self.query * _FP32 // self.width

    def _masked_attention(self, rows: int, seen: int) -> Terms:
        """Attention with a mask: keys and values repeated for every head, the mask as numbers."""
        shape, width = self.shape, self.width
        repeated = 2 * seen * self.query if shape.heads != shape.kv_heads else 0
        return {
            "hidden states and activations": rows
            * (3 * shape.hidden + self._attention() - 2 * self.keys)
            * width,
            "repeated keys and values": repeated * width,
            "mask as numbers": rows * seen * width,
        }

    def _mlp(self) -> int:
        """Gate, up and their product; with gate and up in one, one more."""
        return self.shape.mlp_copies * self.shape.mlp

    # Terms that several strategies share.

    def _plain(self, kv_layers: int, working: Terms, rows: int, seen: int | None = None) -> Terms:
        return {
            **self._plain_fixed(rows),
            "KV": kv_layers * (seen or self.tokens) * self.shape.layer_kv_bytes_per_token,
            **working,
        }

    def _plain_fixed(self, rows: int) -> Terms:
        return {
            "weights": self.shape.weights_bytes,
            "states": self._states_bytes(),
            "rotary tables": rows * self._table_bytes(),
            # The ids and their positions.
            "token ids": 2 * rows * _INT64,
        }

    def _plain_decode(self) -> Held:
        """All KV, and while a token is added to a layer one more copy of its keys."""
        layer = self.tokens * self.shape.layer_kv_bytes_per_token
        device = {
            **self._decode_terms(),
            "KV": self.shape.kv_layers * layer,
            "longer keys": layer // 2,
        }
        return self._held("decode", device, {"token ids": self.tokens * _INT64})

    def _decode_terms(self) -> Terms:
        return {
            "weights": self.shape.weights_bytes,
            "states": self._states_bytes(),
            "logits": self.shape.vocabulary * (self.width + _FP32),
        }

    def _kv_without_reservation(self, tier: Literal["device", "host", "disk"]) -> int:
        """Of one layer, stored at once in a store that adds some room for more."""
        per_token = self.shape.layer_kv_bytes_per_token
        if tier == "device" or self.strategy.device_type == "cpu":
            return (self.tokens + _SPARE_TOKENS) * per_token
        return self._pinned_tokens(reserved_tokens=None) * per_token

    def _kv_with_reservation(self) -> int:
        """Of one layer, with room for an answer; the last pinned piece may not be wanted yet."""
        tokens = self.tokens + self.strategy.reserved_tokens
        if self.strategy.kv == "host" and self.strategy.device_type == "cuda":
            tokens = self._pinned_tokens(tokens)
        return tokens * self.shape.layer_kv_bytes_per_token

    def _kv_for_the_answer(self) -> int:
        """On the device while answering: all that the next tokens can see, or two layers of it."""
        seen = [
            last_tokens(layer.window, self.tokens) + self.strategy.reserved_tokens
            for index, layer in enumerate(self.shape.layers)
            if index not in self.shape.recurrent
        ]
        tokens = sum(seen) if self.strategy.decode == "device" else 2 * max(seen)
        return tokens * self.shape.layer_kv_bytes_per_token

    def _pinned_tokens(self, reserved_tokens: int | None) -> int:
        """Room of one layer on the host, taken piece by piece until the prompt is in it."""
        room = 0
        while room < self.tokens:
            if reserved_tokens is None:
                missing = self.tokens - room + max(_SPARE_TOKENS, room // _SPARE_SHARE)
            else:
                missing = reserved_tokens - room
            room += pinned_piece_tokens(missing, self.shape.layer_kv_bytes_per_token // 2)
        return room

    def _table_bytes(self) -> int:
        """Of the cosines and sines of one token."""
        return 2 * round(self.shape.head_dim * self.shape.rotary_share) * self.width

    def _kept_tables(self, rows: int) -> int:
        """Tables kept between layers, and those of the chunk if they are not."""
        kept = min(self.tokens, KEPT_CALL_TOKENS // rows * rows)
        made = rows if self.tokens > kept else 0
        return (kept + made) * (self._table_bytes() + _INT64)

    def _states_bytes(self) -> int:
        if self.recurrent is None:
            return 0
        return len(self.shape.recurrent) * self.recurrent.state_bytes

    def _streamed_weights(self) -> int:
        """Everything outside the layers, and the room of two layers that take turns."""
        outside = self.shape.weights_bytes - sum(self.shape.layers_bytes)
        return outside + 2 * max(self.shape.layers_bytes)

    def _highest(
        self, moments: dict[str, Terms], host: Terms | None = None, disk: Terms | None = None
    ) -> Held:
        name = max(moments, key=lambda name: sum(moments[name].values()))
        ids = {"token ids": self.tokens * _INT64}
        return self._held(name, moments[name], ids if host is None else host, disk)

    def _held(self, moment: str, device: Terms, host: Terms, disk: Terms | None = None) -> Held:
        return Held(moment=moment, device=device, host=dict(host), disk=dict(disk or {}))
