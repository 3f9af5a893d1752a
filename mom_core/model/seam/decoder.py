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

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionLayer,
)
from transformers.masking_utils import and_masks, causal_mask_function, sliding_window_overlay

from mom_core.attention import Segment, segment_attention
from mom_core.errors import UnsupportedModel
from mom_core.kv.state import LayerState
from mom_core.kv.store import LayerKV
from mom_core.kv.tiers import Tier
from mom_core.kv.transfer import CroppableKV, KVSink
from mom_core.model.seam.plain_layer import AttentionArguments, RowLayer, fingerprint, row_layer
from mom_core.model.weight_stream import WeightStream
from mom_core.native import kernels
from mom_core.native.linear import bf16_linear, is_wide_faster

ATTENTION_NAME = "mom"
_PROBE_NAME = "mom-probe"

_PADDED = (
    "The attention 'mom' got a padded or packed batch. It reads one sequence without padding: "
    "pass one prompt and no attention mask."
)

# A module, and the forward that stands in for its own.
_Forward = tuple[nn.Module, Callable[..., Any]]


def refuse_padding(attention_mask: Tensor | None, input_ids: Tensor | None = None) -> None:
    """The attention 'mom' sees all tokens before; a mask that hides some must not be ignored.

    Raises:
        UnsupportedModel: the mask hides a token or is not one of tokens, or there are several
            sequences.
    """
    is_batch = input_ids is not None and input_ids.shape[0] != 1
    is_masked = attention_mask is not None and (
        attention_mask.dim() != 2 or attention_mask.shape[0] != 1 or not bool(attention_mask.all())
    )
    if is_batch or is_masked:
        raise UnsupportedModel(_PADDED)


def is_empty_cache(cache: object) -> bool:
    """Whether there is no cache yet, or only one that transformers made and nothing is in."""
    if cache is None:
        return True
    if not isinstance(cache, DynamicCache):
        return False
    return all(not getattr(layer, "is_initialized", True) for layer in cache.layers) and not any(
        any(layer.has_previous_state.values())
        for layer in cache.layers
        if isinstance(layer, LinearAttentionLayer)
    )


def _no_mask(
    *args: Any,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int | Tensor = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> None:
    """In place of transformers' masks: none is made, and none that matters is lost.

    Raises:
        UnsupportedModel: a mask would hide or show more than causality and a window do, or the
            keys reach beyond the queries.
    """
    refuse_padding(attention_mask)
    if not _is_causal_or_window(mask_function):
        raise UnsupportedModel(
            "The attention 'mom' sees all tokens before, or those of a window. This call wants "
            "another mask (packed sequences, images, or one of its own): pass one plain text."
        )
    if int(kv_offset) + kv_length != int(q_offset) + q_length:
        raise UnsupportedModel(
            "The attention 'mom' got a cache with room for tokens to come (a static cache). Use "
            "transformers' dynamic cache, or none."
        )


def _is_causal_or_window(mask: Callable[..., Any]) -> bool:
    """Whether a mask function of transformers is its causal one, maybe with a sliding window.

    They are closures, told apart by their code.
    """
    if mask is causal_mask_function:
        return True
    code = getattr(mask, "__code__", None)
    if code is sliding_window_overlay(1).__code__:
        return True
    if code is not and_masks(causal_mask_function).__code__:
        return False
    return all(
        _is_causal_or_window(m) for m in inspect.getclosurevars(mask).nonlocals["mask_functions"]
    )


class KVStored(Exception):
    """Raised by a cache layer told to stop once it has stored keys and values."""


class SegmentCacheLayer(CacheLayerMixin):  # type: ignore[misc, unused-ignore]
    """A transformers cache layer that keeps its keys and values in segments.

    `update` hands the new keys on with their layer attached; the attention function finds all
    segments there, so nothing is concatenated.
    """

    is_croppable = True

    def __init__(self, kv: KVSink, config: PretrainedConfig | None = None) -> None:
        super().__init__()
        self.kv = kv
        self.stop_once_stored = False
        self.is_initialized = True
        self._config = config

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the store takes its shape from the first tokens."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Stores keys and values `[1, G, N, D]`; returns the keys with their layer attached.

        Raises:
            KVStored: the layer was told to stop once it has stored them.
            UnsupportedModel: the model's attention is not ours: it would see the new keys alone.
        """
        config = self._config
        if config is not None and config._attn_implementation_internal != ATTENTION_NAME:
            raise UnsupportedModel(
                "A cache made inside memory_saving was used outside. It can only be used inside "
                "such a block: go on inside one, or begin with a new cache."
            )
        self.kv.append(key_states, value_states)
        if self.stop_once_stored:
            raise KVStored
        key_states.mom_layer = self.kv  # type: ignore[attr-defined]
        return key_states, value_states

    def get_seq_length(self) -> int:
        """Tokens stored."""
        return self.kv.tokens

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys a mask would cover."""
        return self.kv.tokens + query_length, 0

    def get_max_length(self) -> int:
        """No limit of its own."""
        return -1

    def crop(self, tokens_to_remove: int | Tensor) -> None:
        """Takes back the last tokens, as transformers' assisted generation does.

        Args:
            tokens_to_remove: their number, negative; 0 leaves all. Some versions give a tensor.
        """
        number = abs(int(tokens_to_remove))
        if number:
            self._crop_to(self.kv.tokens - number)

    def reset(self) -> None:
        """Forgets all tokens."""
        self._crop_to(0)

    def offload(self) -> None:
        """Nothing to do: keys and values live on their tier."""

    def prefetch(self) -> None:
        """Nothing to do: keys and values are attended to where they are."""

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """There is one sequence only.

        Raises:
            UnsupportedModel: always.
        """
        raise UnsupportedModel(_PADDED)

    def _crop_to(self, tokens: int) -> None:
        if not isinstance(self.kv, CroppableKV):
            raise UnsupportedModel("The keys and values of this cache cannot be taken back.")
        self.kv.crop(tokens)

    def get_max_cache_shape(self) -> int:
        """The same, under the name transformers 5.17 knows."""
        return -1


class StateCacheLayer(LinearAttentionLayer):  # type: ignore[misc, unused-ignore]
    """A transformers cache layer for a recurrent or convolution state that a `LayerState` holds."""

    PARTS = (
        "conv_states",
        "recurrent_states",
        "is_conv_states_initialized",
        "is_recurrent_states_initialized",
        "has_previous_state",
        "conv_kernel_size",
    )

    def __init__(self, state: LayerState, number_of_states: int = 1) -> None:
        super().__init__(number_of_states=number_of_states)
        if not state.parts:
            state.adopt({name: getattr(self, name) for name in self.PARTS})
        for name, part in state.parts.items():
            setattr(self, name, part)


def segment_cache(
    layers: Sequence[KVSink | LayerState], config: PretrainedConfig | None = None
) -> Cache:
    """A transformers cache over these layers' KV and states.

    Args:
        layers: one for each decoder layer.
        config: of the model, where somebody else calls it: then use without our attention is
            refused.
    """
    return Cache(
        layers=[
            StateCacheLayer(layer)
            if isinstance(layer, LayerState)
            else SegmentCacheLayer(layer, config)
            for layer in layers
        ]
    )


def mom_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """transformers' attention interface on top of `segment_attention`.

    Args:
        module: the attention module of a layer.
        query: `[1, H, Q, D]`.
        key: `[1, G, K, D]`; from `SegmentCacheLayer.update`, or plain keys of all tokens.
        value: `[1, G, K, D]`.
        attention_mask: must be None: every query sees what causality and the window allow.
        scaling: factor on the scores; None is `D ** -0.5`.
        sliding_window: W, None for none.
        softcap: see `segment_attention`.
        s_aux: `[H]` attention sinks.
        **kwargs: what else transformers passes (positions, dropout, ...); not needed.

    Returns:
        `[1, Q, H, D]` and None in place of the weights.

    Raises:
        UnsupportedModel: a mask or a batch was given, or attention that is not causal.
    """
    if attention_mask is not None or query.shape[0] != 1:
        raise UnsupportedModel(_PADDED)
    if not getattr(module, "is_causal", True):
        raise UnsupportedModel("The attention 'mom' is causal, and this layer's is not.")
    expected = _expected_window(module)
    if expected is not _UNKNOWN and expected != sliding_window:
        raise UnsupportedModel(
            f"A layer of {type(module).__name__} is to have {_window_words(expected)} by its "
            f"configuration, and asks the attention 'mom' for {_window_words(sliding_window)}. "
            "This model cannot be run exactly."
        )
    layer: KVSink | None = getattr(key, "mom_layer", None)
    segments = [Segment(0, key, value)] if layer is None else layer.segments()
    output = segment_attention(
        query,
        segments[-1].end - query.shape[2],
        segments,
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=sliding_window,
        softcap=softcap,
        sinks=s_aux,
    )
    return output.transpose(1, 2), None


class _Unknown:
    """A module that does not say which layer it is of, or has no configuration."""


_UNKNOWN = _Unknown()
_EXPECTED_WINDOWS: WeakKeyDictionary[nn.Module, int | _Unknown | None] = WeakKeyDictionary()


def _expected_window(module: nn.Module) -> int | _Unknown | None:
    """The window that transformers' masks would give this attention module.

    Some families tell only the mask of it, and not the attention.
    """
    if module not in _EXPECTED_WINDOWS:
        config, index = getattr(module, "config", None), getattr(module, "layer_idx", None)
        found: int | _Unknown | None = _UNKNOWN
        if isinstance(config, PretrainedConfig) and isinstance(index, int):
            layers = DynamicCache(config=config).layers
            if index < len(layers):
                found = getattr(layers[index], "sliding_window", None)
        _EXPECTED_WINDOWS[module] = found
    return _EXPECTED_WINDOWS[module]


def _window_words(window: int | _Unknown | None) -> str:
    return "no window" if window is None else f"a window of {window} tokens"


def _probe_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **asked: Any
) -> tuple[Tensor, None]:
    """`mom_attention` that notes on the layer's `ProbeKV` what it was asked for."""
    scale = asked.get("scaling")
    key.mom_layer.arguments = AttentionArguments(  # type: ignore[attr-defined]
        query.shape[-1] ** -0.5 if scale is None else scale,
        asked.get("sliding_window"),
        asked.get("softcap"),
        asked.get("s_aux"),
    )
    return mom_attention(module, query, key, value, *args, **asked)


AttentionInterface.register(ATTENTION_NAME, mom_attention)
AttentionInterface.register(_PROBE_NAME, _probe_attention)
AttentionMaskInterface.register(ATTENTION_NAME, _no_mask)
AttentionMaskInterface.register(_PROBE_NAME, _no_mask)


@dataclass(frozen=True, slots=True)
class LayerCall:
    """What transformers calls one layer with, for one chunk, besides the hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LayerWidths:
    """What a layer with attention is made of, as far as its working memory depends on it.

    Args:
        mlp: F; of experts, all that one token passes.
        mlp_copies: how many `[C, F]` are alive at once.
        has_gated_query: the query projection also gives a gate of the query's width.
        has_head_norm: queries and keys are normed by head.
        rotary_share: the share of D that is rotated.
    """

    mlp: int
    mlp_copies: int
    has_gated_query: bool
    has_head_norm: bool
    rotary_share: float


class _StandIn(nn.Module):
    """Takes a layer's place in the list; knows the layer's attributes, runs `respond`."""

    def __init__(
        self, layer: nn.Module, respond: Callable[[Tensor, LayerCall], Tensor | tuple[Tensor]]
    ) -> None:
        super().__init__()
        # Not a submodule: the stand-in must not adopt the layer.
        object.__setattr__(self, "_layer", layer)
        self._respond = respond

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(object.__getattribute__(self, "_layer"), name)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self._respond(hidden_states, LayerCall(args, kwargs))


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
        self._kinds = _layer_kinds(model, len(layers))
        self.layers: list[nn.Module] = list(layers)
        self.device: torch.device = model.get_input_embeddings().weight.device
        self.dtype: torch.dtype = model.dtype
        self.weights: WeightStream | None = None
        self._lock = RLock()
        self._rows: dict[int, tuple[object, RowLayer | None]] = {}

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
        """Of the layers with attention, told by the modules of the first of them."""
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
        with self._lock, torch.no_grad():
            before = self.config._attn_implementation_internal
            modules = self.decoder._modules
            layers = modules["layers"]
            self.config._attn_implementation_internal = attention
            if stand_ins is not None:
                modules["layers"] = nn.ModuleList(stand_ins)
            try:
                yield
            finally:
                modules["layers"] = layers
                self.config._attn_implementation_internal = before

    @contextmanager
    def memory_saving(self, forwards: Sequence[_Forward]) -> Iterator[None]:
        """Our attention and these modules' stand-ins, for calls of the model from outside."""
        before = self.config._attn_implementation_internal
        self.config._attn_implementation_internal = ATTENTION_NAME
        try:
            with self._lock, _forwards(forwards):
                yield
        finally:
            self.config._attn_implementation_internal = before

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
            total_tokens: of the whole sequence, which some rotations depend on.

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
        stand_ins = [_StandIn(first, record), *(_StandIn(layer, record_rest) for layer in rest)]
        whole = [
            (rope, partial(_rope_of_whole, rope.forward, total_tokens - 1))
            for rope in self._longrope_modules()
        ]
        with self._ours(stand_ins), _forwards(whole):
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
            index: of the layer.
            hidden: `[1, C, E]` on the device.
            call: from `embed` for this chunk and layer.

        Returns:
            The layer's output `[1, C, E]`.

        Raises:
            KVStored: the cache layer was told to stop once it has stored keys and values.
        """
        with self._ours(), _forwards(self._chunk_linears(index)):
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
            self.weights = WeightStream(self.layers, self.device, home)

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
        forwards: list[_Forward] = []
        if self.weights is not None:
            for index, layer in enumerate(self.layers):
                forwards.append((layer, partial(self._streamed, index, layer.forward)))
        with self._lock, _forwards(forwards):
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
        stand_ins = [_StandIn(layer, lambda _hidden, _call: hidden) for layer in self.layers]
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
                _StandIn(layer, partial(respond, index)) for index, layer in enumerate(self.layers)
            ]

        def step(token_ids: Sequence[int], position: int) -> Tensor:
            with self._ours(stand_ins), _forwards(linears):
                ids = torch.tensor([list(token_ids)])
                logits = self._forward(ids, position, cache, len(token_ids))
            return logits[0].float()

        return step

    def _current_rows(self) -> list[RowLayer | None]:
        """The layers our kernel runs for a few tokens; None where the layer runs itself."""
        ours = kernels() if self.device.type == "cpu" and self.weights is None else None
        if ours is None:
            return [None] * len(self.layers)
        with self._lock:
            for index, layer in enumerate(self.layers):
                now = fingerprint(layer)
                if index not in self._rows or self._rows[index][0] != now:
                    run = partial(self._run_probe, index)
                    row = row_layer(layer, ours, run, self.context_window_tokens - 1)
                    self._rows[index] = (now, row)
            return [self._rows[index][1] for index in range(len(self.layers))]

    def _run_probe(self, index: int, hidden: Tensor, kwargs: dict[str, Any], kv: LayerKV) -> Tensor:
        """One layer over some rows of a made-up context, noting what it asks of attention."""
        cache = segment_cache([kv] * len(self.layers))
        with self._ours(attention=_PROBE_NAME):
            output = self.layers[index](hidden, past_key_values=cache, **kwargs)
        states: Tensor = output[0] if isinstance(output, tuple) else output
        return states

    def _chunk_linears(self, index: int) -> list[_Forward]:
        """Linear modules of a layer that torch would run slowly, with our way in their place."""
        if not self._is_bf16_on_cpu or not is_wide_faster():
            return []
        return _bf16_linears(self.layers[index].modules())

    def _linears_outside(self, rows: Sequence[RowLayer | None]) -> list[_Forward]:
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


def _bf16_linears(modules: Iterable[nn.Module]) -> list[_Forward]:
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


def move_all_but_layers(model: PreTrainedModel, device: torch.device) -> None:
    """Embeddings, norm, head and tables go to the device; the layers stay where they are."""
    modules = model.get_decoder()._modules
    layers = modules["layers"]
    modules["layers"] = nn.ModuleList()
    try:
        model.to(device)
    finally:
        modules["layers"] = layers


def _rope_of_whole(
    forward: Callable[..., tuple[Tensor, ...]],
    last_position: int,
    x: Tensor,
    position_ids: Tensor,
    *args: Any,
    **kwargs: Any,
) -> tuple[Tensor, ...]:
    """Rotary tables of a chunk as they are when the whole sequence is run at once.

    LongRoPE looks at the last position it is given, so it is given the last of all.
    """
    last = torch.full_like(position_ids[..., :1], last_position)
    tables = forward(x, torch.cat([position_ids, last], dim=-1), *args, **kwargs)
    return tuple(table[..., :-1, :] for table in tables)


@dataclass(frozen=True, slots=True)
class _LayerKind:
    """What a layer keeps of the tokens before.

    Args:
        is_recurrent: a state; else keys and values.
        window: W of sliding-window attention, None for full attention.
    """

    is_recurrent: bool
    window: int | None = None


def _layer_kinds(model: PreTrainedModel, layers: int) -> list[_LayerKind]:
    """Of every layer, by the cache that transformers itself would make for this configuration.

    Raises:
        UnsupportedModel: a layer keeps something else, or not for itself.
    """
    config = model.config.get_text_config(decoder=True)
    name = type(model).__name__
    shared = getattr(config, "num_kv_shared_layers", 0) or 0
    if shared:
        raise UnsupportedModel(
            f"{name} has {shared} layers that use the keys and values of other layers. "
            "mom-chat reads layer by layer, each with its own, and cannot run it exactly."
        )
    chunked = "chunked_attention" in (getattr(config, "layer_types", None) or ())
    made = DynamicCache(config=config).layers
    kinds: list[_LayerKind] = []
    for layer in made:
        if type(layer) is LinearAttentionLayer and layer.number_of_states == 1:
            kinds.append(_LayerKind(is_recurrent=True))
        elif type(layer) is DynamicSlidingWindowLayer and not chunked:
            kinds.append(_LayerKind(is_recurrent=False, window=int(layer.sliding_window)))
        elif type(layer) is DynamicLayer:
            kinds.append(_LayerKind(is_recurrent=False))
        else:
            kind = "chunked attention" if chunked else type(layer).__name__
            raise UnsupportedModel(
                f"{name} has layers of a kind that mom-chat cannot run exactly ({kind}). Layers "
                "with full attention, a sliding window, linear attention or a short convolution "
                "can be used."
            )
    if len(kinds) != layers:
        raise UnsupportedModel(
            f"{name} has {layers} layers, and transformers makes a cache of {len(kinds)} for it. "
            "It cannot be run layer by layer."
        )
    return kinds


@contextmanager
def _forwards(replacements: Sequence[_Forward]) -> Iterator[None]:
    """Modules with another forward; put back afterwards, also one that was somebody's own."""
    before = [(module, module.__dict__.get("forward")) for module, _ in replacements]
    for module, forward in replacements:
        module.__dict__["forward"] = forward
    try:
        yield
    finally:
        for module, own in before:
            if own is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = own
