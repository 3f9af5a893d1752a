"""The manifest of a snapshot: its contents, its model, and its checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mom_core.errors import SnapshotUnusable
from mom_core.snapshot.tensor_file import Written

MANIFEST = "manifest.json"
FORMAT = 1
# Token ids per block; each block has a digest of its ids and all earlier ones.
BLOCK_TOKENS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where an unfinished reading stopped.

    Args:
        past: number of tokens that every layer holds.
        layer: index of the layer that was running, 0 to L-1.
        position: number of tokens that this layer has done, including `past`.
        hidden: name of the file with the hidden states `[1, S, E]`.
    """

    past: int
    layer: int
    position: int
    hidden: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a snapshot holds.

    Args:
        fingerprint: fingerprint of the model; see `mom_core.model.fingerprint`.
        model: name of the model, shown to people.
        tokens: number of tokens, T; for an unfinished reading, that of the whole prompt.
        created_at: time of writing, in ISO 8601 and UTC.
        blocks: digests of the token ids, from the first to the end of each block.
        tokens_file: name of the file with the token ids.
        logits_file: name of the file with the next token's logits; "" if they are unknown.
        layers: names of each layer's files, in order.
        files: size and checksum of every file, by name.
        progress: where an unfinished reading stopped; None for a finished one.
        extra: further values that the app stores.
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
        """Bytes of all files."""
        return sum(file.bytes for file in self.files.values())

    @property
    def fraction(self) -> float:
        """The share of layers and tokens that is done, 0..1; 1.0 for a finished reading."""
        at = self.progress
        if at is None:
            return 1.0
        return fraction_done(
            at.layer, len(self.layers), at.position - at.past, self.tokens - at.past
        )


def fraction_done(layer: int, layers: int, done_tokens: int, tokens: int) -> float:
    """The share of a reading that is done, 0..1.

    Args:
        layer: the running layer, from 0.
        layers: L.
        done_tokens: tokens that this layer has done.
        tokens: tokens to read.
    """
    return (layer + done_tokens / max(1, tokens)) / max(1, layers)


def block_digests(token_ids: Sequence[int]) -> tuple[str, ...]:
    """A digest for each full block of token ids, of this block and all earlier ones."""
    digest, found = hashlib.blake2b(digest_size=8), []
    for start in range(0, len(token_ids) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        block = token_ids[start : start + BLOCK_TOKENS]
        digest.update(b"".join(int(token).to_bytes(4, "little") for token in block))
        found.append(digest.copy().hexdigest())
    return tuple(found)


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks the manifest of a snapshot.

    Args:
        folder: folder of the snapshot.

    Raises:
        SnapshotUnusable: the manifest is missing, damaged, or of another version.
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
        raise damaged(folder, MANIFEST) from error
    if content.get("version") != FORMAT:
        raise SnapshotUnusable(
            f"{folder} was written by another version of mom-chat (format "
            f"{content.get('version')}; this one reads {FORMAT}). Forget it, or use that version."
        )
    if seal != _seal(content):
        raise damaged(folder, MANIFEST)
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
        raise damaged(folder, MANIFEST) from error


def tokens_of_layer(manifest: Manifest, index: int) -> int:
    """The number of tokens in a layer's files.

    Args:
        manifest: manifest of the snapshot.
        index: index of the layer.
    """
    progress = manifest.progress
    if progress is None or index < progress.layer:
        return manifest.tokens
    return progress.position if index == progress.layer else progress.past


def sealed(manifest: Manifest) -> bytes:
    """The manifest as JSON, with its own checksum."""
    content = {"version": FORMAT, **asdict(manifest)}
    return json.dumps({"checksum": _seal(content), "manifest": content}).encode()


def _seal(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def damaged(folder: Path, name: str) -> SnapshotUnusable:
    """The error for a damaged file.

    Args:
        folder: folder of the snapshot.
        name: name of the file.
    """
    return SnapshotUnusable(
        f"{name} of the prepared document in {folder} is damaged, so it is not used. Forget it; "
        "the document will be read again when you ask about it."
    )
