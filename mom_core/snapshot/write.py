"""Writes snapshots: contexts saved on disk while they are in use, each complete or absent.

A snapshot is a folder. It contains `manifest.json`, the token ids, the next token's logits, and
files for every layer: keys and values (each file continues the tokens of the one before it), or the
kept copies of a recurrent state.

The manifest lists every file with its size and checksum, and has a checksum of its own. It is
written last, after all files have reached the disk, and replaced atomically. Files that it does not
list do not count. However a process ends, the folder therefore holds either the old snapshot or the
new one.

An unfinished reading is saved in the same way, together with the hidden states between two layers
(`Progress`). Earlier layers then have all tokens, and later layers have none of the new ones.

Opening verifies all checksums. This takes no longer than reading the files from the disk, which the
first token needs anyway. The files are then mapped, and keys and values are views of them.

Source: ours.
"""

from __future__ import annotations

import datetime
import json
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mom_core.files import flush_folder, write_aside
from mom_core.kv.state import LayerState, Parts
from mom_core.kv.store import LayerKV
from mom_core.snapshot.manifest import (
    MANIFEST,
    Manifest,
    Progress,
    block_digests,
    sealed,
    tokens_of_layer,
)
from mom_core.snapshot.tensor_file import Piecewise, Written, along_tokens, write_tensors


class SnapshotWriter:
    """Writes a snapshot layer by layer, or extends an existing one.

    Args:
        folder: folder of the snapshot, created (mode 0700) if missing; nobody else may write to it.
        stop: event that ends writing with `tensor_file.Stopped` once it is set; None for none.

    Raises:
        OSError: the folder is not writable.
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
        """Continues from what the folder already contains.

        Args:
            manifest: manifest of the folder.
        """
        self._files = dict(manifest.files)
        self._tokens = (manifest.tokens_file, manifest.blocks, manifest.tokens)
        for index, files in enumerate(manifest.layers):
            self._layers[index] = list(files)
            self._ends[index] = tokens_of_layer(manifest, index)

    def put_tokens(self, token_ids: Sequence[int]) -> None:
        """Writes the ids of all tokens."""
        ids = torch.tensor(list(token_ids), dtype=torch.int64)
        name = self._write("tokens", {"token_ids": ids})
        self._tokens = (name, block_digests(token_ids), len(token_ids))

    def put_layer(self, index: int, layer: LayerKV | LayerState) -> None:
        """Writes what is new in a layer since it was last written.

        Args:
            index: index of the layer.
            layer: the layer's KV or state, which must not change during writing.
        """
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
        """Writes the next token's logits `[V]`; None if they are unknown."""
        self._logits = "" if logits is None else self._write("logits", {"logits": logits})

    def put_hidden(self, pieces: Sequence[Tensor]) -> str:
        """Writes the hidden states of an unfinished reading.

        Args:
            pieces: hidden states `[1, N, E]`, in order.

        Returns:
            The file's name, for `Progress`.
        """
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
        """Makes everything written so far the snapshot, atomically.

        Args:
            fingerprint: fingerprint of the model.
            model: name of the model.
            layers: number of layers, L.
            progress: where an unfinished reading stopped; None for a finished one.
            extra: further values that the app stores.
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
        write_aside(self.folder / MANIFEST, sealed(manifest))
        for path in self.folder.glob("*.safetensors"):
            if path.name not in self._files:
                path.unlink(missing_ok=True)
        return manifest

    def _write(
        self, name: str, tensors: dict[str, Any], metadata: dict[str, str] | None = None
    ) -> str:
        # Each file gets a new name, so that files in the current manifest stay unchanged.
        name = f"{name}-{uuid.uuid4().hex[:8]}.safetensors"
        self._files[name] = write_tensors(self.folder / name, tensors, metadata, self._stop)
        return name


def _described(kept: dict[int, Parts]) -> tuple[dict[str, Tensor], list[list[Any]]]:
    """The tensors of kept states by name, and everything else about them in JSON form."""
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
