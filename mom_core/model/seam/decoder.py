"""A model of transformers, run layer by layer.

A decoder of transformers consists of embeddings, a list of layers, a norm and a head. Its `forward`
computes everything in between: rotary embeddings, scalings, masks. To run any family layer by layer
without code for that family, the seam lets `forward` do its own work, and replaces only the *list
of layers*. The stand-ins record the arguments of each layer's call, or return hidden states that
were computed before. A layer itself is called exactly as transformers calls it, but with our cache
(whose layers subclass transformers' own) and our attention.

The model is patched only during these calls. Between them it is the plain transformers module.

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
from transformers import Cache, PreTrainedModel

from mom_core.errors import UnsupportedModel
from mom_core.kv.store import LayerKV
from mom_core.kv.tiers import Tier, device_tier
from mom_core.model.seam.attention import ATTENTION_NAME, PROBE_NAME
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
    """A loaded decoder-only model that can be run in parts.

    Args:
        model: transformers model with a language-modelling head.

    Raises:
        UnsupportedModel: the model is not a decoder with a list of layers.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        decoder = model.get_decoder()
        layers = getattr(decoder, "layers", None)
        if not isinstance(layers, nn.ModuleList) or model.get_output_embeddings() is None:
            raise UnsupportedModel(
                f"{type(model).__name__} is not a decoder-only language model with a list of "
                "layers. Use a model that AutoModelForCausalLM loads, for example of the Llama, "
                "Mistral or Qwen family."
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
        self._plain_layers: dict[int, tuple[object, PlainLayer | None]] = {}

    @property
    def hidden_size(self) -> int:
        """The hidden size, E."""
        return int(self.config.hidden_size)

    @property
    def heads(self) -> int:
        """The number of attention heads, H."""
        return int(self.config.num_attention_heads)

    @property
    def kv_heads(self) -> int:
        """The number of key-value heads, G."""
        return int(getattr(self.config, "num_key_value_heads", None) or self.heads)

    @property
    def head_dim(self) -> int:
        """The numbers per head, D."""
        return int(getattr(self.config, "head_dim", None) or self.hidden_size // self.heads)

    @property
    def vocabulary_size(self) -> int:
        """The size of the vocabulary, V."""
        return int(self.config.vocab_size)

    @property
    def context_window_tokens(self) -> int:
        """The longest sequence, in tokens, that the model was made for."""
        return int(self.config.max_position_embeddings)

    @property
    def recurrent_layers(self) -> frozenset[int]:
        """The indices of layers with a state instead of keys and values."""
        return frozenset(i for i, kind in enumerate(self._kinds) if kind.is_recurrent)

    def window_of_layer(self, index: int) -> int | None:
        """The window W of a layer with sliding-window attention; None for any other layer."""
        return self._kinds[index].window

    def layer_widths(self) -> LayerWidths:
        """The widths of the layers with attention, taken from the first one."""
        index = next((i for i, kind in enumerate(self._kinds) if not kind.is_recurrent), 0)
        modules = {name.rsplit(".", 1)[-1]: m for name, m in self.layers[index].named_modules()}
        query = modules.get("q_proj")
        rows = query.weight.shape[0] if isinstance(query, nn.Linear) else 0
        config = self.config
        experts = getattr(config, "num_experts_per_tok", None)
        wide = getattr(config, "moe_intermediate_size", None) if experts else None
        # If the config has no value, or not the same for all layers, the usual one.
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
        """The longest sequence, in tokens, before LongRoPE changes the rotation of all positions.

        None if the rotation does not depend on the length of the sequence.
        """
        parameters = getattr(self.config, "rope_parameters", None) or {}
        if not self._longrope_modules():
            return None
        return int(
            parameters.get("original_max_position_embeddings")
            or self.config.original_max_position_embeddings
        )

    def rope_parameters(self) -> dict[str, Any]:
        """How positions are rotated, in transformers' terms; {} if kinds of layers differ."""
        parameters = dict(getattr(self.config, "rope_parameters", None) or {})
        return parameters if "rope_type" in parameters else {}

    def set_rope(self, parameters: dict[str, Any], context_tokens: int) -> None:
        """Changes how positions are rotated, in the model's configuration and its tables.

        Args:
            parameters: the new parameters, in the form that `rope_parameters` returns.
            context_tokens: the longest sequence, in tokens, that the model then takes.
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
    def _patched(
        self, stand_ins: Sequence[nn.Module] | None = None, attention: str = ATTENTION_NAME
    ) -> Iterator[None]:
        """Inside, the model has our attention, and stand-ins in place of its layers."""
        in_place = nullcontext() if stand_ins is None else replaced_layers(self.decoder, stand_ins)
        with self._lock, torch.no_grad(), attention_replaced(self.config, attention), in_place:
            yield

    @contextmanager
    def memory_saving(self, forwards: Sequence[Forward]) -> Iterator[None]:
        """Inside, anybody's calls of the model use our attention and these `forward`s.

        Args:
            forwards: modules, with the `forward` that replaces their own.
        """
        attention = attention_replaced(self.config, ATTENTION_NAME)
        with self._lock, attention, replaced_forwards(forwards):
            yield

    def _forward(self, input_ids: Tensor, start: int, cache: Cache, keep: int = 1) -> Tensor:
        """Runs the model's own `forward`; returns the logits `[1, keep, V]` of the last tokens."""
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
        """The input of the first layer, and the arguments with which each layer is called.

        Args:
            input_ids: token ids of a chunk, `[1, C]`.
            start: position of the first token.
            cache: cache of the context, passed on to the layers.
            total_tokens: number of tokens in the whole sequence; some rotations depend on it.

        Returns:
            The embeddings `[1, C, E]`, and one `LayerCall` per layer.
        """
        embeddings: list[Tensor] = []
        calls: list[LayerCall] = []

        def record(hidden: Tensor, call: LayerCall) -> Tensor:
            embeddings.append(hidden)
            calls.append(call)
            # Norm and head after the layers need only one row.
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
        with self._patched(stand_ins), replaced_forwards(whole):
            positions = torch.arange(start, start + input_ids.shape[1], device=self.device)
            self.decoder(
                input_ids=input_ids.to(self.device),
                position_ids=positions.unsqueeze(0),
                past_key_values=cache,
                use_cache=True,
            )
        return embeddings[0], calls

    def run_layer(self, index: int, hidden: Tensor, call: LayerCall) -> Tensor:
        """Runs one decoder layer on a chunk.

        Args:
            index: index of the layer.
            hidden: hidden states `[1, C, E]`, on the device.
            call: the call of this layer that `embed` returned for the chunk.

        Returns:
            The layer's output `[1, C, E]`.

        Raises:
            KVStored: the cache layer should stop once it has stored keys and values.
        """
        with self._patched(), replaced_forwards(self._chunk_linears(index)):
            output = self._call_layer(index, hidden, *call.args, **call.kwargs)
        states: Tensor = output[0] if isinstance(output, tuple) else output
        return states

    def _call_layer(self, index: int, *args: Any, **kwargs: Any) -> Any:
        """Calls the decoder layer itself, with its weights on the device."""
        with nullcontext() if self.weights is None else self.weights.using(index):
            return self.layers[index](*args, **kwargs)

    @property
    def layers_are_away(self) -> bool:
        """Whether any layer has weights that are not on the device."""
        return any(p.device != self.device for layer in self.layers for p in layer.parameters())

    def stream_weights(self, home: Tier | None) -> None:
        """Moves the layers' weights to a tier, from which they are copied layer by layer.

        Args:
            home: tier of the weights; None ends streaming, and puts the weights back.

        Raises:
            UnsupportedModel: the weights cannot be moved.
            OutOfMemory: the tier has no room for the weights.
        """
        if self.weights is not None:
            self.weights.close()
            self.weights = None
        if home is not None:
            self.weights = WeightStream(self.layers, self.tier, home)

    def hold_weights(self) -> None:
        """Moves all weights of the layers to the device, to stay there."""
        if self.weights is not None:
            self.weights.close(self.device)
            self.weights = None
        for layer in self.layers:
            if any(p.device != self.device for p in layer.parameters()):
                layer.to(self.device)

    @contextmanager
    def whole_model(self) -> Iterator[None]:
        """Inside, the model can be called as a whole, even if its weights are streamed."""
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
        """The next token's logits `[V]` in fp32, from the last layer's output for one token.

        Args:
            hidden: hidden state of the token, `[1, 1, E]`.
            token_id: id of the token.
            position: position of the token.
            cache: cache of the context.
        """
        stand_ins = [StandIn(layer, lambda _hidden, _call: hidden) for layer in self.layers]
        with self._patched(stand_ins):
            logits = self._forward(torch.tensor([[token_id]]), position, cache)
        return logits[0, -1].float()

    def stepper(self, cache: Cache) -> Callable[[Sequence[int], int], Tensor]:
        """A function that runs one or a few further tokens through the whole model.

        Args:
            cache: cache of the context.

        Returns:
            A function of n token ids and the position of the first. It returns the logits after
            each token, `[n, V]`, in fp32.
        """
        plain = self.plain_layers()
        linears = self._linears_outside(plain)

        def respond(index: int, hidden: Tensor, call: LayerCall) -> Any:
            ours = plain[index]
            if ours is None or not ours.takes(hidden, call.args, call.kwargs):
                return self._call_layer(index, hidden, *call.args, **call.kwargs)
            return ours.run(hidden, call.kwargs["position_embeddings"], cache.layers[index].kv)

        stand_ins = None
        if any(plain) or self.weights is not None:
            stand_ins = [
                StandIn(layer, partial(respond, index)) for index, layer in enumerate(self.layers)
            ]

        def step(token_ids: Sequence[int], position: int) -> Tensor:
            with self._patched(stand_ins), replaced_forwards(linears):
                ids = torch.tensor([list(token_ids)])
                logits = self._forward(ids, position, cache, len(token_ids))
            return logits[0].float()

        return step

    def plain_layers(self) -> list[PlainLayer | None]:
        """For each layer, the plain layer that our kernel runs; None if the layer is not plain."""
        ours = kernels() if self.device.type == "cpu" and self.weights is None else None
        if ours is None:
            return [None] * len(self.layers)
        with self._lock:
            for index, layer in enumerate(self.layers):
                now = layer_identity(layer)
                if index not in self._plain_layers or self._plain_layers[index][0] != now:
                    run = partial(self._run_probe, index)
                    found = as_plain_layer(layer, ours, run, self.context_window_tokens - 1)
                    self._plain_layers[index] = (now, found)
            return [self._plain_layers[index][1] for index in range(len(self.layers))]

    def _run_probe(self, index: int, hidden: Tensor, kwargs: dict[str, Any], kv: LayerKV) -> Tensor:
        """Runs a layer on rows of a made-up context, and records its arguments to attention."""
        cache = segment_cache([kv] * len(self.layers))
        with self._patched(attention=PROBE_NAME):
            output = self.layers[index](hidden, past_key_values=cache, **kwargs)
        states: Tensor = output[0] if isinstance(output, tuple) else output
        return states

    def _chunk_linears(self, index: int) -> list[Forward]:
        """Replacements for a layer's linear modules that torch would run slowly on a chunk."""
        if not self._is_bf16_on_cpu or not is_wide_faster():
            return []
        return _bf16_linears(self.layers[index].modules())

    def _linears_outside(self, plain: Sequence[PlainLayer | None]) -> list[Forward]:
        """Replacements for the linear modules outside plain layers, for products of few rows."""
        # In fp32, torch's own product of one row is as fast.
        if not self._is_bf16_on_cpu:
            return []
        inside = {
            module
            for layer, ours in zip(self.layers, plain, strict=True)
            if ours is not None
            for module in layer.modules()
        }
        return _bf16_linears(m for m in self.model.modules() if m not in inside)

    @property
    def _is_bf16_on_cpu(self) -> bool:
        return self.device.type == "cpu" and self.dtype is torch.bfloat16


def _bf16_linears(modules: Iterable[nn.Module]) -> list[Forward]:
    """Replacements, by the fastest bf16 product on the CPU, for the plain ones of these modules."""

    def linear(module: nn.Linear, rows: Tensor) -> Tensor:
        return bf16_linear(rows, module.weight, module.bias)

    return [
        (module, partial(linear, module))
        for module in modules
        # Leave alone whatever wraps or replaces the plain module or its weights.
        if type(module) is nn.Linear
        and type(module.weight) is nn.Parameter
        and module.weight.dtype is torch.bfloat16
        and "forward" not in module.__dict__
    ]
