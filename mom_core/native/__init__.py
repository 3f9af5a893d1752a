"""Kernels in C for the CPU, compiled on this machine when there is a compiler.

`few_rows.c` is for decoding, `chunk_attention.c` for the attention of prefill in bf16.

They only make it faster: without a compiler, after a failed compilation or a failed check
against torch, `kernels()` is None and torch's own kernels are used.

Source: ours.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

import filelock
import torch
from torch import Tensor

from mom_core.files import cache_folder

_SOURCES = tuple(Path(__file__).with_name(name) for name in ("few_rows.c", "chunk_attention.c"))
_FLAGS = (
    "-O3",
    "-march=native",
    "-mprefer-vector-width=512",
    "-funroll-loops",
    "-ffast-math",
    "-fno-finite-math-only",
    "-fPIC",
    "-fopenmp",
)
_COMPILE_SECONDS = 120
_DTYPES = (torch.bfloat16, torch.float32)
# Tokens of a step of decoding: one, and a draft.
FEW_ROWS = 8
_LANES = 16
_ROWS_MAX = 32
_KEYS_PER_PIECE = 256
_CHUNK_DIM_MAX = 512


class LayerWeights(NamedTuple):
    """What a decoder layer of the plain shape is made of; None where it has no such part.

    Weights are `[out, in]`, biases and norms `[n]`; all in one dtype (bf16 or fp32), contiguous,
    on the CPU. The order is that of `mom_layer` in few_rows.c.
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
        path: of the shared library.
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
            and rows.dtype in _DTYPES
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
            and keys.dtype in _DTYPES
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
            scale: of the scores.

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
            scale: of the scores.
            window: W, a query sees itself and the W - 1 keys before; None sees all before it.
            softcap: scores become `softcap * tanh(score / softcap)`; None leaves them.
            dtype: of the output, fp32 or bf16.

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


_is_off: ContextVar[bool] = ContextVar("native kernels are off", default=False)


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """Inside, torch does everything itself: the kernels read addresses, fake tensors have none."""
    before = _is_off.set(True)
    try:
        yield
    finally:
        _is_off.reset(before)


def kernels() -> Kernels | None:
    """The kernels, compiled when first asked for; None where they cannot be had."""
    return None if _is_off.get() else built_kernels()


@functools.cache
def built_kernels() -> Kernels | None:
    """`kernels` for the whole process, on or off."""
    try:
        built = Kernels(_library())
        return built if _agrees_with_torch(built) else None
    except (OSError, RuntimeError, subprocess.SubprocessError, AttributeError):
        return None


def _library() -> Path:
    """The compiled library in the person's cache folder.

    Raises:
        OSError: there is no compiler, or no place to write.
        subprocess.SubprocessError: the compilation failed.
    """
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise OSError("no C compiler")
    omp = _torch_openmp()
    key = hashlib.sha256(
        b"\0".join(
            [
                *(source.read_bytes() for source in _SOURCES),
                *(" ".join(_FLAGS).encode(), _cpu().encode(), str(omp).encode()),
            ]
        )
    ).hexdigest()[:20]
    folder = cache_folder() / "native"
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / f"kernels-{key}.so"
    if library.exists():
        return library
    with filelock.FileLock(folder / f"kernels-{key}.lock"), tempfile.TemporaryDirectory() as work:
        if not library.exists():
            made = Path(work) / "kernels.so"
            objects = [str(Path(work) / f"{source.stem}.o") for source in _SOURCES]
            for source, target in zip(_SOURCES, objects, strict=True):
                _run([compiler, *_FLAGS, "-c", str(source), "-o", target])
            # Torch's own OpenMP, so that there is one pool of threads and not two.
            threads = "-fopenmp" if omp is None else str(omp)
            _run([compiler, "-shared", *objects, threads, "-lm", "-o", str(made)])
            # Another process must never see half a file.
            staged = library.with_suffix(f".{os.getpid()}")
            shutil.copy(made, staged)
            staged.replace(library)
    return library


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=_COMPILE_SECONDS)


def _torch_openmp() -> Path | None:
    """The OpenMP library that torch brought along, None where it uses the system's."""
    folder = Path(torch.__file__).parent / "lib"
    return next(iter(sorted(folder.glob("libgomp*.so*"))), None)


def _cpu() -> str:
    """What this CPU can do: a cache folder may be shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        import platform

        return platform.processor() + platform.machine()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _agrees_with_torch(built: Kernels) -> bool:
    """A wrong kernel is worse than a slow one: every start compares once."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    for dtype in _DTYPES:
        rows, weight, bias = (t.to(dtype) for t in (draw(1, 7, 77), draw(19, 77), draw(19)))
        truth = torch.nn.functional.linear(rows.double(), weight.double(), bias.double())
        linear = built.linear_rows(rows, weight, bias).double()
        if not torch.allclose(linear, truth, rtol=2**-7, atol=1e-2):
            return False
        query, keys, values = draw(1, 2, 5, 32), draw(1, 2, 700, 32), draw(1, 2, 700, 32)
        keys, values = keys.to(dtype), values.to(dtype)
        scores = query.double() @ keys.double().mT * 0.2
        output, lse = built.attend_rows(query, keys, values, 0.2)
        if not torch.allclose(output.double(), scores.softmax(-1) @ values.double(), atol=1e-5):
            return False
        if not torch.allclose(lse.double(), scores.logsumexp(-1), atol=1e-5):
            return False
    return not built.has_chunk_attention or _chunk_agrees_with_torch(built, draw)


def _chunk_agrees_with_torch(built: Kernels, draw: Callable[..., Tensor]) -> bool:
    query, keys, values = (
        t.to(torch.bfloat16) for t in (draw(1, 4, 70, 48), draw(1, 2, 300, 48), draw(1, 2, 300, 48))
    )
    offset, window = 230, 199
    output, lse = built.attend_chunk(
        query,
        keys,
        values,
        offset=offset,
        scale=0.2,
        window=window,
        softcap=None,
        dtype=torch.float32,
    )
    distance = torch.arange(70).unsqueeze(1) + offset - torch.arange(300)
    grouped = query.double().view(1, 2, 2, 70, 48)
    scores = (grouped @ keys.double().unsqueeze(2).mT * 0.2).view(1, 4, 70, 300)
    scores.masked_fill_((distance < 0) | (distance >= window), -math.inf)
    truth = scores.softmax(-1).view(1, 2, 2, 70, 300) @ values.double().unsqueeze(2)
    return torch.allclose(output.double(), truth.view(1, 4, 70, 48), atol=1e-2) and torch.allclose(
        lse.double(), scores.logsumexp(-1), atol=1e-4
    )
