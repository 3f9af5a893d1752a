"""The kernels as Python calls them."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

DTYPES = (torch.bfloat16, torch.float32)
# Tokens of a step of decoding: one, and a draft.
FEW_ROWS = 8
_LANES = 16
_ROWS_MAX = 32
_KEYS_PER_PIECE = 256
_CHUNK_DIM_MAX = 512


class LayerWeights(NamedTuple):
    """What a decoder layer of the plain shape is made of; None where it has no such part.

    Weights are `[out, in]`, biases and norms `[n]`; all in one dtype (bf16 or fp32), contiguous,
    on the CPU. The order is that of `mom_layer` in layer_rows.c.
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
    """Widths E, F, heads H, G, D, and the epsilons of the norms of such a layer."""

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
    """One decoder layer of the plain shape, for a few rows, in the two parts around attention.

    RMSNorm, q/k/v, RMSNorm of the heads (if any), rotary position | attention | o, residual,
    RMSNorm, gate/up/SiLU/down, residual. Between its ends everything is fp32.

    Args:
        kernels: the library.
        weights: kept alive, and read where they are: nothing is copied.
        numbers: sizes and epsilons.
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
        """Query `[1, H, R, D]`, keys and values `[1, G, R, D]`.

        Args:
            hidden: `[1, R, E]`, contiguous, in the layer's dtype.
            cos: `[1, R, D]`, the same.
            sin: `[1, R, D]`, the same.
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
        """The layer's output `[1, R, E]`.

        Args:
            hidden: as given to `before`.
            attended: `[1, H, R, D]`, contiguous, in the layer's dtype.
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
    """Whether what is computed from these must have gradients; the kernels give none."""
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
        """Whether `linear_rows` can do this product."""
        return (
            not needs_gradients(rows, weight)
            # Quantised weights are tensors of a type of their own, with another memory behind.
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
            rows: `[..., I]`, at most `FEW_ROWS` rows, bf16 or fp32.
            weight: `[O, I]`, same dtype.
            bias: `[O]`, same dtype, or None.

        Returns:
            `[..., O]`, same dtype.
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
        """Whether `attend_rows` can do this attention."""
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
            query: `[1, G, R, D]`.
            keys: `[1, G, K, D]`, bf16 or fp32.
            values: `[1, G, K, D]`, same dtype.
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
        """Whether this CPU multiplies pairs of bf16, as `attend_chunk` needs."""
        return self._has_chunk

    def takes_chunk(self, query: Tensor, keys: Tensor, values: Tensor) -> bool:
        """Whether `attend_chunk` can do this attention."""
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
        """Causal attention of a chunk over one run of keys; scores and sums are fp32.

        Args:
            query: `[1, H, Q, D]`, bf16.
            keys: `[1, G, K, D]`, bf16.
            values: `[1, G, K, D]`, bf16.
            offset: position of the first query among the keys; it may lie beyond them.
            scale: factor on the scores.
            window: W, a query sees itself and the W - 1 keys before; None sees all before it.
            softcap: scores become `softcap * tanh(score / softcap)`; None leaves them.
            dtype: for the output, fp32 or bf16.

        Returns:
            Output `[1, H, Q, D]` and log-sum-exp `[1, H, Q]`, fp32; a query that sees no key has
            output 0 and log-sum-exp -inf.
        """
        _, heads, queries, head_dim = query.shape
        kv_heads, tokens = keys.shape[1], keys.shape[2]
        work_bytes = self._chunk_work_bytes(queries, heads, kv_heads, head_dim)
        work = torch.empty(work_bytes, dtype=torch.uint8)
        # Heads side by side for each token, as the projection after attention wants them.
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
