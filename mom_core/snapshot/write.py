"""Contexts on disk: saved while they are in use, found again whole or not at all.

A snapshot is a folder: `manifest.json`, the token ids, for every layer one file or more of keys
and values (each the tokens that came after those of the one before) or of kept recurrent states,
and the next token's logits. The manifest names every file with its size and checksum, and has one
of itself; it is written last, aside and renamed, after all it names has reached the disk. What it
does not name does not exist. So whatever ends a process, the folder is what it was or what it was
to be.

A reading that is not over is kept in the same way, with the hidden states between two layers
(`Progress`): layers before it have all tokens, those after it have none of the new ones.

Opening checks all checksums, which takes no longer than bringing the bytes from the disk, as the
first token would; then files are mapped, and keys and values are views of them.

Source: ours.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from mom_core.errors import SnapshotUnusable
from mom_core.kv.state import LayerState, Parts
from mom_core.kv.store import KVStore, LayerKV
from mom_core.snapshot.tensor_file import (
    Piecewise,
    Written,
    along_tokens,
    checksum_of,
    mapped_tensors,
    write_tensors,
)

MANIFEST = "manifest.json"
FORMAT = 1
# Of so many token ids each there is a digest in the manifest, of them and all before them.
BLOCK_TOKENS = 64
_CHECKING_THREADS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a reading is that is not over.

    Args:
        past: tokens that every layer holds.
        layer: that runs, 0..L-1.
        position: tokens it has done, those before included.
        hidden: file with the hidden states `[1, S, E]`.
    """

    past: int
    layer: int
    position: int
    hidden: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a snapshot holds.

    Args:
        fingerprint: of the model, see `model.fingerprint`.
        model: its name, for people.
        tokens: T; of a reading that is not over, what it comes to.
        created_at: ISO 8601, UTC.
        blocks: digests of the token ids from the first to the end of each block.
        tokens_file: with the ids.
        logits_file: with the next token's; "" if they are not known.
        layers: files of each layer, in order.
        files: all of them by name.
        progress: of a reading that is not over; None for one that is.
        extra: what the app keeps beside it.
    """

    fingerprint: dict[str, str]
    model: str
    tokens: int
    created_at: str
    blocks: tuple[str, ...]
    tokens_file: str
    logits_file: str
    layers: tuple[tuple[str, ...], ...]
    files: dict[str, Written]
    progress: Progress | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files.values())


def block_digests(token_ids: Sequence[int]) -> tuple[str, ...]:
    """One for each whole block of ids, of it and all before it."""
    digest, found = hashlib.blake2b(digest_size=8), []
    for start in range(0, len(token_ids) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        block = token_ids[start : start + BLOCK_TOKENS]
        digest.update(b"".join(int(token).to_bytes(4, "little") for token in block))
        found.append(digest.copy().hexdigest())
    return tuple(found)


class SnapshotWriter:
    """Writes one snapshot, layer by layer, or goes on with one.

    Args:
        folder: made (0700) if it is not there; nobody else writes in it.
        stop: once set, writing ends with `tensor_file.Stopped`.

    Raises:
        OSError: nothing can be written there.
    """

    def __init__(self, folder: Path, stop: threading.Event | None = None) -> None:
        self.folder = folder
        self._stop = stop
        self._files: dict[str, Written] = {}
        self._layers: dict[int, list[str]] = {}
        self._ends: dict[int, int] = {}
        self._tokens: tuple[str, tuple[str, ...], int] = ("", (), 0)
        self._logits = ""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def go_on(self, manifest: Manifest) -> None:
        """Takes on what the folder holds already."""
        self._files = dict(manifest.files)
        self._tokens = (manifest.tokens_file, manifest.blocks, manifest.tokens)
        for index, files in enumerate(manifest.layers):
            self._layers[index] = list(files)
            self._ends[index] = _tokens_of_layer(manifest, index)

    def put_tokens(self, token_ids: Sequence[int]) -> None:
        """Writes the ids of all tokens."""
        ids = torch.tensor(list(token_ids), dtype=torch.int64)
        name = self._write("tokens", {"token_ids": ids})
        self._tokens = (name, block_digests(token_ids), len(token_ids))

    def put_layer(self, index: int, layer: LayerKV | LayerState) -> None:
        """Writes what a layer has more than was written of it; it must not change meanwhile."""
        if isinstance(layer, LayerState):
            tensors, scalars = _described(layer.kept_parts)
            words = {"kept": json.dumps(scalars), "tokens": str(layer.tokens)}
            self._layers[index] = [self._write(f"layer-{index:03}-states", tensors, words)]
            return
        start = self._ends.get(index, 0)
        segments = [s.slice(start, s.end) for s in layer.segments() if s.end > start]
        if segments:
            name = self._write(
                f"layer-{index:03}",
                {
                    "keys": along_tokens([segment.keys for segment in segments]),
                    "values": along_tokens([segment.values for segment in segments]),
                },
            )
            self._layers.setdefault(index, []).append(name)
            self._ends[index] = layer.tokens

    def put_logits(self, logits: Tensor | None) -> None:
        """Writes the next token's."""
        self._logits = "" if logits is None else self._write("logits", {"logits": logits})

    def put_hidden(self, pieces: Sequence[Tensor]) -> str:
        """Writes the hidden states `[1, N, E]` of all pieces; returns the file's name."""
        shape = (1, sum(piece.shape[1] for piece in pieces), int(pieces[0].shape[2]))
        return self._write("hidden", {"hidden": Piecewise(shape, pieces)})

    def commit(
        self,
        *,
        fingerprint: dict[str, str],
        model: str,
        layers: int,
        progress: Progress | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Manifest:
        """Makes what was written the snapshot, at one blow.

        Args:
            fingerprint: of the model.
            model: its name.
            layers: L.
            progress: of a reading that is not over.
            extra: what the app keeps beside it.
        """
        in_order = tuple(tuple(self._layers.get(index, ())) for index in range(layers))
        tokens_file, blocks, tokens = self._tokens
        named = {tokens_file, self._logits, progress.hidden if progress else ""}
        named |= {name for names in in_order for name in names}
        self._files = {name: file for name, file in self._files.items() if name in named}
        manifest = Manifest(
            fingerprint=fingerprint,
            model=model,
            tokens=tokens,
            created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            blocks=blocks,
            tokens_file=tokens_file,
            logits_file=self._logits,
            layers=in_order,
            files=self._files,
            progress=progress,
            extra=extra or {},
        )
        flush_folder(self.folder)
        write_aside(self.folder / MANIFEST, _sealed(manifest))
        for path in self.folder.glob("*.safetensors"):
            if path.name not in self._files:
                path.unlink(missing_ok=True)
        return manifest

    def _write(
        self, name: str, tensors: dict[str, Any], metadata: dict[str, str] | None = None
    ) -> str:
        # A new name each time: what the manifest names now stays as it is.
        name = f"{name}-{uuid.uuid4().hex[:8]}.safetensors"
        self._files[name] = write_tensors(self.folder / name, tensors, metadata, self._stop)
        return name


def read_manifest(folder: Path) -> Manifest:
    """What a folder holds.

    Raises:
        SnapshotUnusable: there is none, it is damaged, or of another version.
    """
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
        seal, content = json.loads(text)["checksum"], json.loads(text)["manifest"]
        if not isinstance(content, dict):
            raise ValueError
    except FileNotFoundError as error:
        raise SnapshotUnusable(f"{folder} has no {MANIFEST}; it is not a prepared document.") from (
            error
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, MANIFEST) from error
    if content.get("version") != FORMAT:
        raise SnapshotUnusable(
            f"{folder} was written by another version of mom-chat (format "
            f"{content.get('version')}; this one reads {FORMAT}). Forget it, or use that version."
        )
    if seal != _seal(content):
        raise _damaged(folder, MANIFEST)
    try:
        progress = content["progress"]
        return Manifest(
            fingerprint={str(k): str(v) for k, v in content["fingerprint"].items()},
            model=content["model"],
            tokens=content["tokens"],
            created_at=content["created_at"],
            blocks=tuple(content["blocks"]),
            tokens_file=content["tokens_file"],
            logits_file=content["logits_file"],
            layers=tuple(tuple(names) for names in content["layers"]),
            files={name: Written(**file) for name, file in content["files"].items()},
            progress=None if progress is None else Progress(**progress),
            extra=content["extra"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder, MANIFEST) from error


def read_token_ids(folder: Path, manifest: Manifest) -> list[int]:
    """The ids of all tokens, checked.

    Raises:
        SnapshotUnusable: their file is damaged.
    """
    name = manifest.tokens_file
    try:
        if checksum_of(folder / name) != manifest.files[name]:
            raise ValueError
        ids: list[int] = mapped_tensors(folder / name)[0]["token_ids"].tolist()
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise _damaged(folder, name) from error
    return ids


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compares every file with the manifest, byte by byte.

    Raises:
        SnapshotUnusable: one is missing or differs.
    """

    def fault(item: tuple[str, Written]) -> str:
        name, written = item
        try:
            # A size is known at once; a damaged name must not lead elsewhere.
            is_right = (
                Path(name).name == name
                and (folder / name).stat().st_size == written.bytes
                and checksum_of(folder / name) == written
            )
        except OSError:
            is_right = False
        return "" if is_right else name

    with ThreadPoolExecutor(_CHECKING_THREADS) as pool:
        wrong = next((name for name in pool.map(fault, manifest.files.items()) if name), None)
    if wrong is not None:
        raise _damaged(folder, wrong)


@dataclass(frozen=True, slots=True)
class Opened:
    """What a snapshot gave beside keys, values and states.

    Args:
        token_ids: of all tokens.
        logits: the next token's, fp32; None if not known.
        hidden: of a reading that is not over, `[1, S, E]`, a view of a file.
    """

    token_ids: list[int]
    logits: Tensor | None
    hidden: Tensor | None


def open_snapshot(folder: Path, manifest: Manifest, store: KVStore, device: torch.device) -> Opened:
    """Puts a snapshot into an empty store: keys and values as views of its files.

    Args:
        folder: of the snapshot.
        manifest: as `read_manifest` gave it.
        store: of the same model, nothing in it.
        device: where the model computes.

    Raises:
        SnapshotUnusable: a file is damaged.
    """
    check_files(folder, manifest)
    name = manifest.tokens_file
    try:
        token_ids = mapped_tensors(folder / name)[0]["token_ids"].tolist()
        layers = zip(store.layers, manifest.layers, strict=True)
        for index, (layer, names) in enumerate(layers):
            for name in names:
                tensors, metadata = mapped_tensors(folder / name)
                if isinstance(layer, LayerKV):
                    # Layers that are still to run go on in the same segment, as they would have.
                    is_done = manifest.progress is None or index < manifest.progress.layer
                    (layer.hold if is_done else layer.append)(tensors["keys"], tensors["values"])
                else:
                    kept = _as_parts(tensors, json.loads(metadata["kept"]))
                    layer.restore(kept, int(metadata["tokens"]), device)
            if layer.tokens != _tokens_of_layer(manifest, index):
                raise ValueError(f"layer {index} has {layer.tokens} tokens")
        logits = hidden = None
        if name := manifest.logits_file:
            logits = mapped_tensors(folder / name)[0]["logits"].clone().to(device)
        if manifest.progress is not None:
            name = manifest.progress.hidden
            hidden = mapped_tensors(folder / name)[0]["hidden"]
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise _damaged(folder, name) from error
    return Opened(token_ids, logits, hidden)


def _tokens_of_layer(manifest: Manifest, index: int) -> int:
    progress = manifest.progress
    if progress is None or index < progress.layer:
        return manifest.tokens
    return progress.position if index == progress.layer else progress.past


def write_aside(path: Path, data: bytes) -> None:
    """Writes a small private file so that it is never half there.

    Raises:
        OSError: it cannot be written.
    """
    aside = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Makes new and renamed names in a folder last."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sealed(manifest: Manifest) -> bytes:
    content = {"version": FORMAT, **asdict(manifest)}
    return json.dumps({"checksum": _seal(content), "manifest": content}).encode()


def _seal(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _damaged(folder: Path, name: str) -> SnapshotUnusable:
    return SnapshotUnusable(
        f"{name} of the prepared document in {folder} is damaged, so it is not used. Forget it; "
        "the document is read again when it is asked about."
    )


def _described(kept: dict[int, Parts]) -> tuple[dict[str, Tensor], list[list[Any]]]:
    """Tensors by name, and everything else of the kept states, as JSON can hold it."""
    tensors: dict[str, Tensor] = {}
    scalars: list[list[Any]] = []
    for at, parts in kept.items():
        for name, values in parts.items():
            for index, value in values.items():
                key = f"{at}.{name}.{index}"
                if isinstance(value, Tensor):
                    tensors[key] = value
                    value = None
                scalars.append([at, name, index, key in tensors, value])
            if not values:
                scalars.append([at, name, None, False, None])
    return tensors, scalars


def _as_parts(tensors: dict[str, Tensor], scalars: list[list[Any]]) -> dict[int, Parts]:
    kept: dict[int, Parts] = {}
    for at, name, index, is_tensor, value in scalars:
        values = kept.setdefault(at, {}).setdefault(name, {})
        if index is not None:
            # Small, and wanted for as long as the context lives.
            values[index] = tensors[f"{at}.{name}.{index}"].clone() if is_tensor else value
    return kept
