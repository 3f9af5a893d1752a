"""The manifest of a snapshot: what it holds, of which model, and its checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mom_core.errors import SnapshotUnusable
from mom_core.snapshot.tensor_file import (
    Written,
)

MANIFEST = "manifest.json"
FORMAT = 1
# Of so many token ids each there is a digest in the manifest, of them and all before them.
BLOCK_TOKENS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where an unfinished reading is.

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
        fingerprint: the model's, see `model.fingerprint`.
        model: its name, for people.
        tokens: T; for an unfinished reading, the length of the whole prompt.
        created_at: ISO 8601, UTC.
        blocks: digests of the token ids from the first to the end of each block.
        tokens_file: with the ids.
        logits_file: with the next token's; "" if they are not known.
        layers: files of each layer, in order.
        files: all of them by name.
        progress: how far an unfinished reading is; None for a finished one.
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
    """One for each whole block of ids, of it and all before it."""
    digest, found = hashlib.blake2b(digest_size=8), []
    for start in range(0, len(token_ids) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        block = token_ids[start : start + BLOCK_TOKENS]
        digest.update(b"".join(int(token).to_bytes(4, "little") for token in block))
        found.append(digest.copy().hexdigest())
    return tuple(found)


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
    """The tokens that a layer's files hold."""
    progress = manifest.progress
    if progress is None or index < progress.layer:
        return manifest.tokens
    return progress.position if index == progress.layer else progress.past


def sealed(manifest: Manifest) -> bytes:
    """The manifest as JSON, with a checksum of itself."""
    content = {"version": FORMAT, **asdict(manifest)}
    return json.dumps({"checksum": _seal(content), "manifest": content}).encode()


def _seal(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def damaged(folder: Path, name: str) -> SnapshotUnusable:
    """The sentence for a file that is not what it should be."""
    return SnapshotUnusable(
        f"{name} of the prepared document in {folder} is damaged, so it is not used. Forget it; "
        "the document is read again when it is asked about."
    )
