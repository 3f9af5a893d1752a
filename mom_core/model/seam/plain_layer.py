"""Plain decoder layers, run by our kernel on the CPU for a few tokens at a time.

Most families share one layer: RMSNorm, q/k/v, rotary position, attention, o, RMSNorm, and a gated
SiLU MLP. For a single token, torch runs it as some forty operations, which cost more than reading
the weights. `as_plain_layer` recognises such a layer by its parts, not by its family. It then
compares the kernel with the layer itself on random input. Whatever a family does differently
(another rotary order, a multiplier, a norm that adds one) shows up there, and such a layer is left
to torch.

Source: ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mom_core.attention import segment_attention
from mom_core.kv.store import LayerKV
from mom_core.kv.tiers import Tier
from mom_core.kv.transfer import KVSink
from mom_core.native.library import FEW_ROWS, Kernels, LayerKernel, LayerNumbers, LayerWeights

_PARTS = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}
_ATTENTION_PARTS = {"q_proj", "k_proj", "v_proj", "o_proj"}
_HEAD_NORMS = {"q_norm", "k_norm"}
_MLP_PARTS = {"gate_proj", "up_proj", "down_proj"}
_PROBE_TOKENS = 5
_PROBE_ROWS = 3
# Allowed difference between kernel and layer, relative to what the layer adds to its input.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


@dataclass(slots=True)
class AttentionArguments:
    """What a layer passes to attention besides query, keys and values.

    Args:
        scale: factor on the scores.
        window: window W; None for no window.
        softcap: limit on the scores; None for no limit.
        sinks: attention sinks `[H]`; None for no sinks.
    """

    scale: float
    window: int | None
    softcap: float | None
    sinks: Tensor | None


class ProbeKV(LayerKV):
    """Keys and values that also record the arguments of the last attention to them."""

    arguments: AttentionArguments | None = None


# Runs a decoder layer itself, given hidden states `[1, R, E]`, keyword arguments and its KV.
LayerRunner = Callable[[Tensor, dict[str, Any], LayerKV], Tensor]


class PlainLayer:
    """A decoder layer that our kernel runs for a few tokens.

    Args:
        kernel: the layer's parts before and after attention.
        arguments: the layer's arguments to attention.
    """

    def __init__(self, kernel: LayerKernel, arguments: AttentionArguments) -> None:
        self._kernel = kernel
        self._arguments = arguments

    def takes(self, hidden: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the kernel can run a call: few tokens, and no mask.

        Args:
            hidden: hidden states `[1, R, E]`.
            args: further positional arguments of the call.
            kwargs: keyword arguments of the call.
        """
        positions = kwargs.get("position_embeddings")
        return (
            not args
            and hidden.shape[0] == 1
            and hidden.shape[1] <= FEW_ROWS
            and hidden.dtype is self._kernel.dtype
            and kwargs.get("attention_mask") is None
            and isinstance(positions, tuple)
            and len(positions) == 2
            and all(
                p.dtype is hidden.dtype and p.shape == (1, hidden.shape[1], self._kernel.head_dim)
                for p in positions
            )
        )

    def run(self, hidden: Tensor, positions: tuple[Tensor, Tensor], kv: KVSink) -> Tensor:
        """The layer's output `[1, R, E]`.

        Args:
            hidden: hidden states `[1, R, E]`.
            positions: cosines and sines of the rotary positions, `[1, R, D]` each.
            kv: the layer's KV so far, to which the new tokens' KV is appended.
        """
        hidden = hidden.contiguous()
        cos, sin = positions
        query, keys, values = self._kernel.before(hidden, cos.contiguous(), sin.contiguous())
        kv.append(keys, values)
        asked = self._arguments
        attended = segment_attention(
            query,
            kv.tokens - hidden.shape[1],
            kv.segments(),
            scale=asked.scale,
            window=asked.window,
            softcap=asked.softcap,
            sinks=asked.sinks,
        )
        return self._kernel.after(hidden, attended.contiguous())


def as_plain_layer(
    layer: nn.Module, kernels: Kernels, run_layer: LayerRunner, last_position: int
) -> PlainLayer | None:
    """The layer, run by our kernel; None if the layer is not plain.

    Args:
        layer: decoder layer of transformers, on the CPU.
        kernels: compiled kernels.
        run_layer: runs the layer itself, for comparison; with a `ProbeKV` it records the layer's
            arguments to attention.
        last_position: last position of the context window; a layer that depends on the position
            itself differs there.
    """
    found = _weights(layer)
    if found is None:
        return None
    weights, numbers = found
    kernel = LayerKernel(kernels, weights, numbers)
    arguments = _compare(kernel, numbers, run_layer, last_position)
    return None if arguments is None else PlainLayer(kernel, arguments)


def layer_identity(layer: nn.Module) -> tuple[object, ...]:
    """A value that changes when a module, hook or weight is replaced, or when a weight moves."""
    return tuple(
        (
            id(module),
            _is_hooked(module),
            *(p.data_ptr() for p in module.parameters(recurse=False)),
        )
        for module in layer.modules()
    )


def _weights(layer: nn.Module) -> tuple[LayerWeights, LayerNumbers] | None:
    """The layer's weights and sizes, if it has exactly the parts of a plain layer."""
    parts = dict(layer.named_children())
    if set(parts) != _PARTS:
        return None
    attention = dict(parts["self_attn"].named_children())
    mlp = dict(parts["mlp"].named_children())
    head_norms = _HEAD_NORMS & set(attention)
    linears = {**attention, **mlp}
    if (
        set(attention) - _HEAD_NORMS != _ATTENTION_PARTS
        or len(head_norms) == 1
        or set(mlp) - {"act_fn"} != _MLP_PARTS
        or not _is_silu(getattr(parts["mlp"], "act_fn", None))
        or any(_is_hooked(module) for module in layer.modules())
        or any(type(linears[name]) is not nn.Linear for name in _ATTENTION_PARTS | _MLP_PARTS)
    ):
        return None
    norms = [parts["input_layernorm"], parts["post_attention_layernorm"]]
    norms += [attention[name] for name in sorted(head_norms, reverse=True)]
    epsilons = [_epsilon(norm) for norm in norms]
    if any(epsilon is None for epsilon in epsilons):
        return None

    def of(name: str) -> tuple[Tensor, Tensor | None]:
        linear = linears[name]
        assert isinstance(linear, nn.Linear)
        return linear.weight.data, None if linear.bias is None else linear.bias.data

    def scale_of(norm: nn.Module) -> Tensor:
        weight = norm.weight
        assert isinstance(weight, Tensor)
        return weight.data

    q_norm, k_norm = (
        scale_of(attention[name]) if head_norms else None for name in ("q_norm", "k_norm")
    )
    o, o_bias = of("o_proj")
    weights = LayerWeights(
        scale_of(norms[0]),
        *(*of("q_proj"), *of("k_proj"), *of("v_proj")),
        *(q_norm, k_norm),
        *(o, o_bias),
        scale_of(norms[1]),
        *(*of("gate_proj"), *of("up_proj"), *of("down_proj")),
    )
    head_dim = getattr(parts["self_attn"], "head_dim", None)
    if not isinstance(head_dim, int) or not _is_plain(weights, head_dim):
        return None
    in_eps, mid_eps, q_eps, k_eps = (float(e or 0.0) for e in [*epsilons, 0.0, 0.0][:4])
    return weights, LayerNumbers(
        weights.q.shape[1],
        weights.gate.shape[0],
        weights.q.shape[0] // head_dim,
        weights.k.shape[0] // head_dim,
        head_dim,
        in_eps,
        q_eps,
        k_eps,
        mid_eps,
    )


def _is_hooked(module: nn.Module) -> bool:
    """Whether somebody relies on calls of this module: hooks, offloading, adapters."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


def _is_silu(activation: object) -> bool:
    if not callable(activation):
        return False
    grid = torch.linspace(-9, 9, 64)
    return torch.allclose(activation(grid), nn.functional.silu(grid))


def _epsilon(norm: nn.Module) -> float | None:
    """The epsilon of an RMSNorm `x / rms(x) * weight`; None for any other module."""
    epsilon = getattr(norm, "variance_epsilon", None)
    if not isinstance(epsilon, float) or [name for name, _ in norm.named_parameters()] != [
        "weight"
    ]:
        return None
    return epsilon


def _is_plain(weights: LayerWeights, head_dim: int) -> bool:
    dtype, (hidden, mlp) = weights.norm_in.dtype, (weights.q.shape[1], weights.gate.shape[0])
    heads_width, kv_width = weights.q.shape[0], weights.k.shape[0]
    wanted = {
        "norm_in": (hidden,),
        "k": (kv_width, hidden),
        "v": (kv_width, hidden),
        "q_norm": (head_dim,),
        "k_norm": (head_dim,),
        "o": (hidden, heads_width),
        "norm_mid": (hidden,),
        "up": (mlp, hidden),
        "down": (hidden, mlp),
    }
    return (
        dtype in _TOLERANCE
        and head_dim % 2 == 0
        and heads_width % head_dim == 0
        and kv_width % head_dim == 0
        and all(
            # Quantised weights are of another tensor type, with another memory layout.
            type(w) is Tensor and w.dtype is dtype and w.device.type == "cpu" and w.is_contiguous()
            for w in weights
            if w is not None
        )
        and all(
            getattr(weights, name) is None or tuple(getattr(weights, name).shape) == shape
            for name, shape in wanted.items()
        )
    )


def _compare(
    kernel: LayerKernel, numbers: LayerNumbers, run_layer: LayerRunner, last_position: int
) -> AttentionArguments | None:
    """Compares kernel and layer on random input.

    Returns:
        The layer's arguments to attention; None if kernel and layer differ.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(kernel.dtype)

    tier = Tier("host", torch.device("cpu"))
    real, ours = ProbeKV(tier), ProbeKV(tier)
    past = (1, numbers.kv_heads, _PROBE_TOKENS, numbers.head_dim)
    past_keys, past_values = draw(*past), draw(*past)
    for kv in (real, ours):
        kv.append(past_keys, past_values)
    hidden = draw(1, _PROBE_ROWS, numbers.hidden)
    angles = torch.rand(1, _PROBE_ROWS, numbers.head_dim // 2, generator=generator) * 6.3
    angles = angles.repeat(1, 1, 2)
    positions = (angles.cos().to(kernel.dtype), angles.sin().to(kernel.dtype))
    kwargs = {
        "position_embeddings": positions,
        # Unrelated to the angles, so that a layer that uses the position itself differs.
        "position_ids": torch.arange(last_position + 1 - _PROBE_ROWS, last_position + 1)[None],
        "cache_position": torch.arange(last_position + 1 - _PROBE_ROWS, last_position + 1),
        "attention_mask": None,
        "use_cache": True,
    }
    try:
        truth = run_layer(hidden, kwargs, real)
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError):
        # A layer that needs other arguments is not plain.
        return None
    arguments = real.arguments
    if arguments is None or real.tokens != _PROBE_TOKENS + _PROBE_ROWS:
        return None
    output = PlainLayer(kernel, arguments).run(hidden, positions, ours)
    tolerance = _TOLERANCE[kernel.dtype]
    pairs = [(truth - hidden, output - hidden)]
    for theirs, mine in zip(real.segments(), ours.segments(), strict=True):
        pairs += [(theirs.keys[:, :, _PROBE_TOKENS:], mine.keys[:, :, _PROBE_TOKENS:])]
        pairs += [(theirs.values[:, :, _PROBE_TOKENS:], mine.values[:, :, _PROBE_TOKENS:])]
    for theirs_, mine_ in pairs:
        # What rounding in a bf16 sum hides of a small addend does not count.
        hidden_by_rounding = float(torch.finfo(kernel.dtype).eps) * float(hidden.float().norm())
        allowed = tolerance * float(theirs_.float().norm()) + hidden_by_rounding
        if not float((theirs_.float() - mine_.float()).norm()) <= allowed:
            return None
    return arguments
