"""Tensors in safetensors files: written in pieces, without a copy of the whole, and read as views.

The library's own writer needs every tensor whole and contiguous in memory, but the keys and values
of one layer are gigabytes in several segments. The header is padded so that the data starts on a
page. Files are private (mode 0600) and flushed to the disk, and their checksum is computed during
writing.

Source: ours; the format is that of https://github.com/huggingface/safetensors, whose library reads
the files.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import xxhash
from safetensors import safe_open
from torch import Tensor

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_PAGE_BYTES = 4096
_PIECE_BYTES = 1 << 22


class Stopped(Exception):
    """Writing was stopped on request."""


@dataclass(frozen=True, slots=True)
class Piecewise:
    """A tensor whose elements are given in pieces.

    Args:
        shape: shape of the whole tensor.
        pieces: views, on any device, that together contain all elements in order.
    """

    shape: tuple[int, ...]
    pieces: Sequence[Tensor]


@dataclass(frozen=True, slots=True)
class Written:
    """Size and checksum of a file that was written.

    Args:
        bytes: size of the file.
        checksum: XXH3-128 of the whole file, in hexadecimal.
    """

    bytes: int
    checksum: str


def along_tokens(segments: Sequence[Tensor]) -> Piecewise:
    """Keys or values `[1, G, N, D]` of several segments, as one tensor `[1, G, T, D]`."""
    first = segments[0]
    tokens = sum(int(segment.shape[2]) for segment in segments)
    heads = range(first.shape[1])
    pieces = [segment[0, head] for head in heads for segment in segments]
    return Piecewise((1, first.shape[1], tokens, first.shape[3]), pieces)


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor | Piecewise],
    metadata: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
) -> Written:
    """Writes a new file, and flushes it to the disk.

    Args:
        path: the file, which must not exist. After an error, a part of it remains.
        tensors: tensors by name.
        metadata: strings to store with the tensors, by name.
        stop: event that stops writing once it is set; None to always finish.

    Raises:
        OSError: the disk is full, or the folder is not writable.
        Stopped: `stop` was set.
    """
    whole = {
        name: tensor if isinstance(tensor, Piecewise) else Piecewise(tuple(tensor.shape), [tensor])
        for name, tensor in tensors.items()
    }
    header = _header(whole, metadata or {})
    digest, size_bytes = xxhash.xxh3_128(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb", buffering=0) as file:
        for data in itertools.chain([memoryview(header)], _bytes_of(whole)):
            if stop is not None and stop.is_set():
                raise Stopped
            digest.update(data)
            size_bytes += len(data)
            while data:
                data = data[file.write(data) :]
        os.fsync(descriptor)
    return Written(size_bytes, digest.hexdigest())


def _header(tensors: Mapping[str, Piecewise], metadata: Mapping[str, str]) -> bytes:
    described: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name, tensor in tensors.items():
        end = start + sum(piece.nbytes for piece in tensor.pieces)
        described[name] = {
            "dtype": _DTYPES[tensor.pieces[0].dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _PAGE_BYTES)
    return len(text).to_bytes(8, "little") + text


def _bytes_of(tensors: Mapping[str, Piecewise]) -> Iterator[memoryview]:
    for tensor in tensors.values():
        for piece in tensor.pieces:
            flat = piece.detach().reshape(-1)
            step = max(1, _PIECE_BYTES // flat.element_size())
            for start in range(0, len(flat), step):
                part = flat[start : start + step].cpu().contiguous()
                yield part.view(torch.uint8).numpy().data


def checksum_of(path: Path) -> Written:
    """The actual size and checksum of a file.

    Raises:
        OSError: the file cannot be read.
    """
    digest, size_bytes = xxhash.xxh3_128(), 0
    buffer = memoryview(bytearray(_PIECE_BYTES))
    with open(path, "rb", buffering=0) as file:
        while read := file.readinto(buffer):
            digest.update(buffer[:read])
            size_bytes += read
    return Written(size_bytes, digest.hexdigest())


def mapped_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, as views of the file mapped into memory, and its metadata.

    Writing to the tensors would change only memory, never the file.

    Args:
        path: the file.

    Returns:
        Tensors by name, and strings by name.

    Raises:
        OSError: the file cannot be read.
        safetensors.SafetensorError: it is not a safetensors file.
    """
    with safe_open(path, framework="pt", device="cpu") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, dict(file.metadata() or {})
