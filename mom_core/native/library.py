"""Python bindings of the compiled kernels."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

DTYPES = (torch.bfloat16, torch.float32)
# Tokens in one decoding step: one, plus a draft.
FEW_ROWS = 8
_LANES = 16
_ROWS_MAX = 32
_KEYS_PER_PIECE = 256
_CHUNK_DIM_MAX = 512


class LayerWeights(NamedTuple):
    """The weights of a decoder layer of the plain shape; None for a part it lacks.

    Weights are `[out, in]`, biases and norms `[n]`; all are contiguous, on the CPU and in one dtype
    (bf16 or fp32). The order matches `mom_layer` in layer_rows.c.
    """

    norm_in: Tensor
    q: Tensor
    q_bias: Tensor | None
    k: Tensor
    k_bias: Tensor | None
    v: Tensor
    v_bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None
    o: Tensor
    o_bias: Tensor | None
    norm_mid: Tensor
    gate: Tensor
    gate_bias: Tensor | None
    up: Tensor
    up_bias: Tensor | None
    down: Tensor
    down_bias: Tensor | None


class LayerNumbers(NamedTuple):
    """Sizes E, F, H, G, D of a plain layer, in this order, and the epsilons of its norms."""

    hidden: int
    mlp: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_in_eps: float
    q_norm_eps: float
    k_norm_eps: float
    norm_mid_eps: float


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in LayerWeights._fields),
        *((name, ctypes.c_int64) for name in LayerNumbers._fields[:5]),
        ("is_bf16", ctypes.c_int64),
        *((name, ctypes.c_double) for name in LayerNumbers._fields[5:]),
    )


class LayerKernel:
    """One decoder layer of the plain shape for a few rows: the parts before and after attention.

    RMSNorm, q/k/v, RMSNorm of the heads (if any), rotary position | attention | o, residual,
    RMSNorm, gate/up/SiLU/down, residual. Everything between input and output is fp32.

    Args:
        kernels: the compiled kernels.
        weights: the layer's weights, kept alive and read in place, without a copy.
        numbers: the layer's sizes and epsilons.
    """

    def __init__(self, kernels: Kernels, weights: LayerWeights, numbers: LayerNumbers) -> None:
        self._kernels = kernels
        self.weights = weights
        dtype = weights.norm_in.dtype
        self._layer = _Layer(
            *(None if weight is None else weight.data_ptr() for weight in weights),
            *numbers[:5],
            int(dtype is torch.bfloat16),
            *numbers[5:],
        )
        hidden, mlp, heads, kv_heads, head_dim = numbers[:5]
        self.head_dim = head_dim
        self.dtype = dtype
        self._heads, self._kv_heads = heads, kv_heads
        self._work_width = 2 * hidden + 2 * mlp + (heads + 2 * kv_heads) * head_dim

    def before(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The part before attention: queries, keys and values with rotary positions.

        Args:
            hidden: hidden states `[1, R, E]`, contiguous, in the layer's dtype.
            cos: rotary cosines `[1, R, D]`, contiguous, in the layer's dtype.
            sin: rotary sines `[1, R, D]`, contiguous, in the layer's dtype.

        Returns:
            Queries `[1, H, R, D]`, keys and values `[1, G, R, D]`, in the layer's dtype.
        """
        rows = hidden.shape[1]
        query = torch.empty(1, self._heads, rows, self.head_dim, dtype=self.dtype)
        keys = torch.empty(1, self._kv_heads, rows, self.head_dim, dtype=self.dtype)
        values = torch.empty_like(keys)
        work = torch.empty(rows * self._work_width, dtype=torch.float32)
        self._kernels.layer_before(
            ctypes.byref(self._layer),
            rows,
            hidden.data_ptr(),
            cos.data_ptr(),
            sin.data_ptr(),
            query.data_ptr(),
            keys.data_ptr(),
            values.data_ptr(),
            work.data_ptr(),
        )
        return query, keys, values

    def after(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """The part after attention: the layer's output.

        Args:
            hidden: the hidden states given to `before`.
            attended: output of attention `[1, H, R, D]`, contiguous, in the layer's dtype.

        Returns:
            Hidden states `[1, R, E]` in the layer's dtype.
        """
        output = torch.empty_like(hidden)
        work = torch.empty(hidden.shape[1] * self._work_width, dtype=torch.float32)
        self._kernels.layer_after(
            ctypes.byref(self._layer),
            hidden.shape[1],
            hidden.data_ptr(),
            attended.data_ptr(),
            output.data_ptr(),
            work.data_ptr(),
        )
        return output


def needs_gradients(*tensors: Tensor) -> bool:
    """Whether a result computed from these tensors needs gradients; the kernels give none."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


class Kernels:
    """The compiled kernels, called with tensors.

    Args:
        path: the shared library.
    """

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        self._linear = library.mom_linear_rows
        self._linear.argtypes = [*[pointer] * 4, number, size, size, number, pointer]
        self._linear.restype = None
        self._attend = library.mom_attend_rows
        self._attend.argtypes = [*[pointer] * 3, *[size] * 3, *[number] * 5, *[pointer] * 3]
        self._attend.restype = None
        self._has_chunk = bool(library.mom_has_chunk_attention())
        if self._has_chunk:
            self._chunk_work_bytes = library.mom_chunk_work_bytes
            self._chunk_work_bytes.argtypes = [size] * 4
            self._chunk_work_bytes.restype = size
            self._chunk = library.mom_attend_chunk
            real = ctypes.c_float
            self._chunk.argtypes = [*[pointer] * 3, *[size] * 11, real, real, number]
            self._chunk.argtypes += [pointer] * 3
            self._chunk.restype = None
        layer = ctypes.POINTER(_Layer)
        self.layer_before = library.mom_layer_before
        self.layer_before.argtypes = [layer, number, *[pointer] * 7]
        self.layer_before.restype = None
        self.layer_after = library.mom_layer_after
        self.layer_after.argtypes = [layer, number, *[pointer] * 4]
        self.layer_after.restype = None

    def takes_linear(self, rows: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
        """Whether `linear_rows` can compute this product."""
        return (
            not needs_gradients(rows, weight)
            # Quantised weights are tensor subclasses with another memory layout.
            and type(weight) in (Tensor, torch.nn.Parameter)
            and rows.shape[-1] == weight.shape[1]
            and 0 < rows.numel() <= FEW_ROWS * weight.shape[1]
            and rows.dtype in DTYPES
            and weight.dtype is rows.dtype
            and weight.is_contiguous()
            and weight.device.type == "cpu"
            and (bias is None or (bias.dtype is rows.dtype and bias.is_contiguous()))
        )

    def linear_rows(self, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`rows @ weight.T + bias` for a few rows, summed in fp32.

        Args:
            rows: inputs `[..., I]`, at most `FEW_ROWS` rows, bf16 or fp32.
            weight: weights `[O, I]`, same dtype.
            bias: biases `[O]`, same dtype, or None.

        Returns:
            Outputs `[..., O]`, same dtype.
        """
        outputs, inputs = weight.shape
        rows = rows.contiguous()
        number = rows.numel() // inputs
        result = torch.empty((*rows.shape[:-1], outputs), dtype=rows.dtype)
        work = torch.empty(number * (inputs + outputs), dtype=torch.float32)
        self._linear(
            weight.data_ptr(),
            None if bias is None else bias.data_ptr(),
            rows.data_ptr(),
            result.data_ptr(),
            number,
            outputs,
            inputs,
            int(rows.dtype is torch.bfloat16),
            work.data_ptr(),
        )
        return result

    def takes_attention(self, query: Tensor, keys: Tensor, values: Tensor) -> bool:
        """Whether `attend_rows` can compute this attention."""
        head_dim = query.shape[3]
        return (
            not needs_gradients(query, keys, values)
            and keys.dtype in DTYPES
            and values.dtype is keys.dtype
            and head_dim % _LANES == 0
            and values.shape[3] == head_dim
            and query.shape[2] <= _ROWS_MAX
            and keys.shape[2] > 0
            and all(t.stride(3) == 1 and t.stride(2) == head_dim for t in (keys, values))
        )

    def attend_rows(
        self, query: Tensor, keys: Tensor, values: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Attention of a few query rows over many keys, without a mask.

        Args:
            query: queries `[1, G, R, D]`, any floating dtype.
            keys: keys `[1, G, K, D]`, bf16 or fp32.
            values: values `[1, G, K, D]`, same dtype as the keys.
            scale: factor on the scores.

        Returns:
            Output `[1, G, R, D]` and log-sum-exp `[1, G, R]`, both fp32.
        """
        _, heads, rows, head_dim = query.shape
        tokens = keys.shape[2]
        pieces = max(1, min(2 * torch.get_num_threads(), tokens // _KEYS_PER_PIECE))
        scaled = (query.float() * scale).contiguous()
        work = torch.empty(heads * pieces * rows * (head_dim + 1), dtype=torch.float32)
        output = torch.empty(1, heads, rows, head_dim, dtype=torch.float32)
        lse = torch.empty(1, heads, rows, dtype=torch.float32)
        self._attend(
            scaled.data_ptr(),
            keys.data_ptr(),
            values.data_ptr(),
            keys.stride(1),
            values.stride(1),
            tokens,
            heads,
            rows,
            head_dim,
            pieces,
            int(keys.dtype is torch.bfloat16),
            work.data_ptr(),
            output.data_ptr(),
            lse.data_ptr(),
        )
        return output, lse

    @property
    def has_chunk_attention(self) -> bool:
        """Whether this CPU has the bf16 instructions that `attend_chunk` needs."""
        return self._has_chunk

    def takes_chunk(self, query: Tensor, keys: Tensor, values: Tensor) -> bool:
        """Whether `attend_chunk` can compute this attention."""
        head_dim = query.shape[3]
        return (
            self._has_chunk
            and not needs_gradients(query, keys, values)
            and query.dtype is torch.bfloat16
            and head_dim % _LANES == 0
            and head_dim <= _CHUNK_DIM_MAX
            and query.stride(3) == 1
            and query.shape[0] == 1
            and all(
                t.dtype is torch.bfloat16
                and t.device.type == "cpu"
                and t.shape[3] == head_dim
                and t.stride(3) == 1
                and t.stride(2) == head_dim
                for t in (keys, values)
            )
        )

    def attend_chunk(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        offset: int,
        scale: float,
        window: int | None,
        softcap: float | None,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        """Causal attention of a chunk over consecutive keys; scores and sums are fp32.

        Args:
            query: queries `[1, H, Q, D]`, bf16.
            keys: keys `[1, G, K, D]`, bf16.
            values: values `[1, G, K, D]`, bf16.
            offset: the first query's position among the keys; may lie beyond them.
            scale: factor on the scores.
            window: keys that a query sees, its own included; None for all keys up to its own.
            softcap: turns scores into `softcap * tanh(score / softcap)`; None keeps them.
            dtype: the output's dtype, fp32 or bf16.

        Returns:
            Output `[1, H, Q, D]` in `dtype` and log-sum-exp `[1, H, Q]` in fp32. A query that sees
            no key has output 0 and log-sum-exp -inf.
        """
        _, heads, queries, head_dim = query.shape
        kv_heads, tokens = keys.shape[1], keys.shape[2]
        work_bytes = self._chunk_work_bytes(queries, heads, kv_heads, head_dim)
        work = torch.empty(work_bytes, dtype=torch.uint8)
        # Each token's heads lie side by side, as the projection after attention needs them.
        output = torch.empty(1, queries, heads, head_dim, dtype=dtype)
        lse = torch.empty(1, heads, queries, dtype=torch.float32)
        self._chunk(
            query.data_ptr(),
            keys.data_ptr(),
            values.data_ptr(),
            query.stride(1),
            query.stride(2),
            keys.stride(1),
            values.stride(1),
            queries,
            tokens,
            heads,
            kv_heads,
            head_dim,
            offset,
            window or 0,
            scale,
            softcap or 0.0,
            int(dtype is torch.bfloat16),
            work.data_ptr(),
            output.data_ptr(),
            lse.data_ptr(),
        )
        return output.transpose(1, 2), lse
