"""Opens a snapshot: checks its files and maps them, without copying."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from mom_core.kv.state import Parts
from mom_core.kv.store import KVStore, LayerKV
from mom_core.snapshot.manifest import Manifest, damaged, tokens_of_layer
from mom_core.snapshot.tensor_file import Written, checksum_of, mapped_tensors

_CHECKING_THREADS = 4


def read_token_ids(folder: Path, manifest: Manifest) -> list[int]:
    """The ids of all tokens, read from a file whose checksum is verified.

    Args:
        folder: folder of the snapshot.
        manifest: manifest of the snapshot.

    Raises:
        SnapshotUnusable: the file is damaged.
    """
    name = manifest.tokens_file
    try:
        if checksum_of(folder / name) != manifest.files[name]:
            raise ValueError
        ids: list[int] = mapped_tensors(folder / name)[0]["token_ids"].tolist()
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise damaged(folder, name) from error
    return ids


def check_files(folder: Path, manifest: Manifest) -> None:
    """Checks size and checksum of every file.

    Args:
        folder: folder of the snapshot.
        manifest: manifest of the snapshot.

    Raises:
        SnapshotUnusable: a file is missing, or differs from the manifest.
    """

    def fault(item: tuple[str, Written]) -> str:
        name, written = item
        try:
            # The size is checked first, as it is quick. A name must not lead out of the folder.
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
        raise damaged(folder, wrong)


@dataclass(frozen=True, slots=True)
class Opened:
    """What a snapshot contains besides keys, values and states.

    Args:
        token_ids: ids of all tokens.
        logits: the next token's logits `[V]`, in fp32; None if unknown.
        hidden: hidden states `[1, S, E]` of an unfinished reading, as a view of a file; None for
            a finished one.
    """

    token_ids: list[int]
    logits: Tensor | None
    hidden: Tensor | None


def open_snapshot(folder: Path, manifest: Manifest, store: KVStore, device: torch.device) -> Opened:
    """Loads a snapshot into an empty store, whose keys and values become views of the files.

    Args:
        folder: folder of the snapshot.
        manifest: manifest of the snapshot, from `read_manifest`.
        store: empty store for the same model.
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
                    # A layer still to run gets a copy, so that it continues in the same segment.
                    is_done = manifest.progress is None or index < manifest.progress.layer
                    (layer.hold if is_done else layer.append)(tensors["keys"], tensors["values"])
                else:
                    kept = _as_parts(tensors, json.loads(metadata["kept"]))
                    layer.restore(kept, int(metadata["tokens"]), device)
            if layer.tokens != tokens_of_layer(manifest, index):
                raise ValueError(f"layer {index} has {layer.tokens} tokens")
        logits = hidden = None
        if name := manifest.logits_file:
            logits = mapped_tensors(folder / name)[0]["logits"].clone().to(device)
        if manifest.progress is not None:
            name = manifest.progress.hidden
            hidden = mapped_tensors(folder / name)[0]["hidden"]
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise damaged(folder, name) from error
    return Opened(token_ids, logits, hidden)


def _as_parts(tensors: dict[str, Tensor], scalars: list[list[Any]]) -> dict[int, Parts]:
    kept: dict[int, Parts] = {}
    for at, name, index, is_tensor, value in scalars:
        values = kept.setdefault(at, {}).setdefault(name, {})
        if index is not None:
            # A small copy, since it lives as long as the context.
            values[index] = tensors[f"{at}.{name}.{index}"].clone() if is_tensor else value
    return kept
