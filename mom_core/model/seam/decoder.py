"""The one place that touches transformers' internals.

A decoder of transformers is: embeddings, a list of layers, a norm and a head, with everything
between (rotary embeddings, scalings, masks) computed in its own `forward`. To run it layer by
layer without code for any family, this seam lets that `forward` do its own work and only stands
in for the *list of layers*: stand-ins record what each layer would have been called with, or hand
back hidden states computed before. A decoder layer itself is called exactly as transformers
calls it, with our cache (whose layers subclass transformers' own) and our attention.

The model is patched only inside these calls and put back in `finally`: between them it is the
plain transformers module.

Source: ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
)
from transformers.cache_utils import (
    Cache,
)

from mom_core.errors import UnsupportedModel
from mom_core.kv.store import LayerKV
from mom_core.kv.tiers import Tier, device_tier
from mom_core.model.seam.attention import (
    ATTENTION_NAME,
    PROBE_NAME,
)
from mom_core.model.seam.cache import segment_cache
from mom_core.model.seam.layer_kinds import LayerWidths, layer_kinds
from mom_core.model.seam.patches import (
    Forward,
    LayerCall,
    StandIn,
    attention_replaced,
    replaced_forwards,
    replaced_layers,
    rope_of_whole,
)
from mom_core.model.seam.plain_layer import PlainLayer, as_plain_layer, layer_identity
from mom_core.model.weight_stream import WeightStream
from mom_core.native import kernels
from mom_core.native.linear import bf16_linear, is_wide_faster


class HFSeam:
    """A loaded decoder-only model, run in parts.

    Args:
        model: a transformers model with a language-modelling head.

    Raises:
        UnsupportedModel: the model is not a decoder with a list of layers.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        decoder = model.get_decoder()
        layers = getattr(decoder, "layers", None)
        if not isinstance(layers, nn.ModuleList) or model.get_output_embeddings() is None:
            raise UnsupportedModel(
                f"{type(model).__name__} is not a decoder-only language model with a list of "
                "layers. Models of the kind AutoModelForCausalLM loads (Llama, Mistral, Qwen "
                "and the like) can be used."
            )
        self.model = model
        self.decoder = decoder
        self.config = decoder.config
        self._kinds = layer_kinds(model, len(layers))
        self.layers: list[nn.Module] = list(layers)
        self.device: torch.device = model.get_input_embeddings().weight.device
        self.tier = device_tier(self.device)
        self.dtype: torch.dtype = model.dtype
        self.weights: WeightStream | None = None
        self._lock = RLock()
        self._rows: dict[int, tuple[object, PlainLayer | None]] = {}

    @property
    def hidden_size(self) -> int:
        """E."""
        return int(self.config.hidden_size)

    @property
    def heads(self) -> int:
        """H."""
        return int(self.config.num_attention_heads)

    @property
    def kv_heads(self) -> int:
        """G."""
        return int(getattr(self.config, "num_key_value_heads", None) or self.heads)

    @property
    def head_dim(self) -> int:
        """D."""
        return int(getattr(self.config, "head_dim", None) or self.hidden_size // self.heads)

    @property
    def vocabulary_size(self) -> int:
        """V."""
        return int(self.config.vocab_size)

    @property
    def context_window_tokens(self) -> int:
        """The longest sequence the model was made for."""
        return int(self.config.max_position_embeddings)

    @property
    def recurrent_layers(self) -> frozenset[int]:
        """The layers that carry a state instead of keys and values."""
        return frozenset(i for i, kind in enumerate(self._kinds) if kind.is_recurrent)

    def window_of_layer(self, index: int) -> int | None:
        """W of a layer with sliding-window attention, None for any other."""
        return self._kinds[index].window

    def layer_widths(self) -> LayerWidths:
        """The widths of the layers with attention, from the modules of the first one."""
        index = next((i for i, kind in enumerate(self._kinds) if not kind.is_recurrent), 0)
        modules = {name.rsplit(".", 1)[-1]: m for name, m in self.layers[index].named_modules()}
        query = modules.get("q_proj")
        rows = query.weight.shape[0] if isinstance(query, nn.Linear) else 0
        config = self.config
        experts = getattr(config, "num_experts_per_tok", None)
        wide = getattr(config, "moe_intermediate_size", None) if experts else None
        # Where a config says nothing, or not one number for all layers, what is usual.
        wide = wide or getattr(config, "intermediate_size", None)
        width = wide if isinstance(wide, int) else 4 * self.hidden_size
        rotary = getattr(config, "rope_parameters", None) or {}
        return LayerWidths(
            mlp=width * int(experts or 1),
            mlp_copies=4 if "gate_up_proj" in modules else 3,
            has_gated_query=rows == 2 * self.heads * self.head_dim,
            has_head_norm="q_norm" in modules,
            rotary_share=float(rotary.get("partial_rotary_factor") or 1.0),
        )

    def rope_limit(self) -> int | None:
        """The longest sequence before LongRoPE changes the rotation of every position.

        None where positions are rotated alike however long the sequence is.
        """
        parameters = getattr(self.config, "rope_parameters", None) or {}
        if not self._longrope_modules():
            return None
        return int(
            parameters.get("original_max_position_embeddings")
            or self.config.original_max_position_embeddings
        )

    def rope_parameters(self) -> dict[str, Any]:
        """How positions are rotated, in transformers' words; {} where kinds of layers differ."""
        parameters = dict(getattr(self.config, "rope_parameters", None) or {})
        return parameters if "rope_type" in parameters else {}

    def set_rope(self, parameters: dict[str, Any], context_tokens: int) -> None:
        """Rotates positions otherwise from now on: the model's configuration and its tables.

        Args:
            parameters: as `rope_parameters` gives them.
            context_tokens: the longest sequence the model then takes.
        """
        with self._lock:
            self.config.rope_parameters = parameters
            self.config.max_position_embeddings = context_tokens
            for parent in list(self.decoder.modules()):
                for name, module in list(parent.named_children()):
                    if hasattr(module, "rope_type") and hasattr(module, "inv_freq"):
                        made = type(module)(config=self.config).to(self.device)
                        setattr(parent, name, made)

    def _longrope_modules(self) -> list[nn.Module]:
        return [m for m in self.decoder.modules() if getattr(m, "rope_type", None) == "longrope"]

    @contextmanager
    def _ours(
        self, stand_ins: Sequence[nn.Module] | None = None, attention: str = ATTENTION_NAME
    ) -> Iterator[None]:
        """Our attention, and stand-ins for the layers; everything is put back afterwards."""
        in_place = nullcontext() if stand_ins is None else replaced_layers(self.decoder, stand_ins)
        with self._lock, torch.no_grad(), attention_replaced(self.config, attention), in_place:
            yield

    @contextmanager
    def memory_saving(self, forwards: Sequence[Forward]) -> Iterator[None]:
        """Our attention and these modules' stand-ins, for calls of the model from outside."""
        attention = attention_replaced(self.config, ATTENTION_NAME)
        with self._lock, attention, replaced_forwards(forwards):
            yield

    def _forward(self, input_ids: Tensor, start: int, cache: Cache, keep: int = 1) -> Tensor:
        """The model's own forward; returns logits `[1, keep, V]` of the last tokens."""
        positions = torch.arange(start, start + input_ids.shape[1], device=self.device)
        output = self.model(
            input_ids=input_ids.to(self.device),
            position_ids=positions.unsqueeze(0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        logits: Tensor = output.logits
        return logits

    def embed(
        self, input_ids: Tensor, start: int, cache: Cache, total_tokens: int
    ) -> tuple[Tensor, list[LayerCall]]:
        """What the first layer gets, and what every layer is called with.

        Args:
            input_ids: `[1, C]`.
            start: position of the first token.
            cache: the context's cache, passed on to the layers.
            total_tokens: length of the whole sequence, which some rotations depend on.

        Returns:
            The embeddings `[1, C, E]` and one `LayerCall` a layer.
        """
        embeddings: list[Tensor] = []
        calls: list[LayerCall] = []

        def record(hidden: Tensor, call: LayerCall) -> Tensor:
            embeddings.append(hidden)
            calls.append(call)
            # One row is enough for what follows the layers.
            return hidden[:, -1:]

        def record_rest(hidden: Tensor, call: LayerCall) -> Tensor:
            calls.append(call)
            return hidden

        first, *rest = self.layers
        stand_ins = [StandIn(first, record), *(StandIn(layer, record_rest) for layer in rest)]
        whole = [
            (rope, partial(rope_of_whole, rope.forward, total_tokens - 1))
            for rope in self._longrope_modules()
        ]
        with self._ours(stand_ins), replaced_forwards(whole):
            positions = torch.arange(start, start + input_ids.shape[1], device=self.device)
            self.decoder(
                input_ids=input_ids.to(self.device),
                position_ids=positions.unsqueeze(0),
                past_key_values=cache,
                use_cache=True,
            )
        return embeddings[0], calls

    def run_layer(self, index: int, hidden: Tensor, call: LayerCall) -> Tensor:
        """One decoder layer over a chunk.

        Args:
            index: the layer, from 0.
            hidden: `[1, C, E]` on the device.
            call: from `embed` for this chunk and layer.

        Returns:
            The layer's output `[1, C, E]`.

        Raises:
            KVStored: the cache layer was told to stop once it has stored keys and values.
        """
        with self._ours(), replaced_forwards(self._chunk_linears(index)):
            output = self._call_layer(index, hidden, *call.args, **call.kwargs)
        states: Tensor = output[0] if isinstance(output, tuple) else output
        return states

    def _call_layer(self, index: int, *args: Any, **kwargs: Any) -> Any:
        """The decoder layer itself, its weights on the device."""
        with nullcontext() if self.weights is None else self.weights.using(index):
            return self.layers[index](*args, **kwargs)

    @property
    def layers_are_away(self) -> bool:
        """Whether layers have weights that are not on the device."""
        return any(p.device != self.device for layer in self.layers for p in layer.parameters())

    def stream_weights(self, home: Tier | None) -> None:
        """Lets the layers' weights live on a tier and come one by one; None ends it.

        Raises:
            UnsupportedModel: they cannot be moved.
            OutOfMemory: the tier has no room for them.
        """
        if self.weights is not None:
            self.weights.close()
            self.weights = None
        if home is not None:
            self.weights = WeightStream(self.layers, self.tier, home)

    def hold_weights(self) -> None:
        """All weights of the layers are on the device, and stay there."""
        if self.weights is not None:
            self.weights.close(self.device)
            self.weights = None
        for layer in self.layers:
            if any(p.device != self.device for p in layer.parameters()):
                layer.to(self.device)

    @contextmanager
    def whole_model(self) -> Iterator[None]:
        """The model can be called as a whole inside, with streamed weights too."""
        forwards: list[Forward] = []
        if self.weights is not None:
            for index, layer in enumerate(self.layers):
                forwards.append((layer, partial(self._streamed, index, layer.forward)))
        with self._lock, replaced_forwards(forwards):
            yield

    def _streamed(self, index: int, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        assert self.weights is not None
        with self.weights.using(index):
            return forward(*args, **kwargs)

    def head(self, hidden: Tensor, token_id: int, position: int, cache: Cache) -> Tensor:
        """Next-token logits `[V]` in fp32, from the last layer's output for one token.

        Args:
            hidden: `[1, 1, E]`.
            token_id: the token the hidden state belongs to.
            position: its position.
            cache: the context's cache.
        """
        stand_ins = [StandIn(layer, lambda _hidden, _call: hidden) for layer in self.layers]
        with self._ours(stand_ins):
            logits = self._forward(torch.tensor([[token_id]]), position, cache)
        return logits[0, -1].float()

    def stepper(self, cache: Cache) -> Callable[[Sequence[int], int], Tensor]:
        """What runs further tokens, one or a few at a time, through the whole model.

        Args:
            cache: the context's cache.

        Returns:
            A function of n token ids and the first one's position; it gives the logits after
            each of them, `[n, V]`, in fp32.
        """
        rows = self._current_rows()
        linears = self._linears_outside(rows)

        def respond(index: int, hidden: Tensor, call: LayerCall) -> Any:
            row = rows[index]
            if row is None or not row.takes(hidden, call.args, call.kwargs):
                return self._call_layer(index, hidden, *call.args, **call.kwargs)
            return row.run(hidden, call.kwargs["position_embeddings"], cache.layers[index].kv)

        stand_ins = None
        if any(rows) or self.weights is not None:
            stand_ins = [
                StandIn(layer, partial(respond, index)) for index, layer in enumerate(self.layers)
            ]

        def step(token_ids: Sequence[int], position: int) -> Tensor:
            with self._ours(stand_ins), replaced_forwards(linears):
                ids = torch.tensor([list(token_ids)])
                logits = self._forward(ids, position, cache, len(token_ids))
            return logits[0].float()

        return step

    def _current_rows(self) -> list[PlainLayer | None]:
        """The layers our kernel runs for a few tokens; None where the layer runs itself."""
        ours = kernels() if self.device.type == "cpu" and self.weights is None else None
        if ours is None:
            return [None] * len(self.layers)
        with self._lock:
            for index, layer in enumerate(self.layers):
                now = layer_identity(layer)
                if index not in self._rows or self._rows[index][0] != now:
                    run = partial(self._run_probe, index)
                    row = as_plain_layer(layer, ours, run, self.context_window_tokens - 1)
                    self._rows[index] = (now, row)
            return [self._rows[index][1] for index in range(len(self.layers))]

    def _run_probe(self, index: int, hidden: Tensor, kwargs: dict[str, Any], kv: LayerKV) -> Tensor:
        """One layer over some rows of a made-up context, noting what it asks of attention."""
        cache = segment_cache([kv] * len(self.layers))
        with self._ours(attention=PROBE_NAME):
            output = self.layers[index](hidden, past_key_values=cache, **kwargs)
        states: Tensor = output[0] if isinstance(output, tuple) else output
        return states

    def _chunk_linears(self, index: int) -> list[Forward]:
        """Linear modules of a layer that torch would run slowly, with our way in their place."""
        if not self._is_bf16_on_cpu or not is_wide_faster():
            return []
        return _bf16_linears(self.layers[index].modules())

    def _linears_outside(self, rows: Sequence[PlainLayer | None]) -> list[Forward]:
        """Linear modules that torch would run, with our product for few rows in its place."""
        # torch's own product of a row is as good in fp32.
        if not self._is_bf16_on_cpu:
            return []
        inside = {
            module
            for layer, row in zip(self.layers, rows, strict=True)
            if row is not None
            for module in layer.modules()
        }
        return _bf16_linears(m for m in self.model.modules() if m not in inside)

    @property
    def _is_bf16_on_cpu(self) -> bool:
        return self.device.type == "cpu" and self.dtype is torch.bfloat16


def _bf16_linears(modules: Iterable[nn.Module]) -> list[Forward]:
    """The plain linear modules among these, with the fastest way for bf16 on the CPU."""

    def linear(module: nn.Linear, rows: Tensor) -> Tensor:
        return bf16_linear(rows, module.weight, module.bias)

    return [
        (module, partial(linear, module))
        for module in modules
        # What wraps or replaces the plain module, or its weights, has its reasons.
        if type(module) is nn.Linear
        and type(module.weight) is nn.Parameter
        and module.weight.dtype is torch.bfloat16
        and "forward" not in module.__dict__
    ]
