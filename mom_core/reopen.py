"""A context from a snapshot: its files are mapped, and an unfinished reading can be resumed.

Source: ours.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mom_core.context import Context
from mom_core.errors import SnapshotUnusable
from mom_core.generate.resume import PartialReading
from mom_core.kv.oom import memory_errors_as_sentences
from mom_core.kv.transfer import HiddenStates, Lanes
from mom_core.model.fingerprint import difference
from mom_core.placement import Placement
from mom_core.snapshot.manifest import read_manifest
from mom_core.snapshot.open import open_snapshot
from mom_core.strategy import Strategy


def reopen(
    folder: Path,
    placement: Placement,
    fingerprint: dict[str, str],
    name: str,
    strategy: Callable[[int], Strategy],
) -> Context:
    """Opens a snapshot as a context.

    Args:
        folder: the snapshot.
        placement: where things lie.
        fingerprint: that of the model that will use it.
        name: that model's, for sentences.
        strategy: the settings for a prompt of that many tokens.

    Raises:
        SnapshotUnusable: it is damaged, of another version, or of another model.
        OutOfMemory: there is no room for the hidden states of an unfinished reading.
    """
    manifest = read_manifest(folder)
    if words := difference(fingerprint, manifest.fingerprint):
        raise SnapshotUnusable(
            f"The prepared document in {folder} was read by {manifest.model} with {words}, so "
            f"it cannot be used with {name} as it is loaded now. It is read again."
        )
    settings, device = strategy(manifest.tokens), placement.device
    # Files are mapped on the host; they go to a GPU when the context is used.
    is_file_home = device.type != "cpu" and settings.kv == "device"
    context = placement.new_context("host" if is_file_home else settings.kv)
    placement.reserve(context.store, manifest.tokens)
    with memory_errors_as_sentences():
        opened = open_snapshot(folder, manifest, context.store, device)
    if (progress := manifest.progress) is None:
        context.ids = opened.token_ids
        context.note_logits(opened.logits)
        return context
    assert opened.hidden is not None
    context.ids = opened.token_ids[: progress.past]
    with memory_errors_as_sentences():
        hidden = HiddenStates(
            placement.tier(settings.hidden),
            device,
            Lanes(device),
            tokens=manifest.tokens - progress.past,
            width=int(opened.hidden.shape[2]),
            dtype=opened.hidden.dtype,
        )
        hidden.fill([opened.hidden])
    context.unfinished.reading = PartialReading(
        opened.token_ids[progress.past :],
        progress.past,
        progress.layer,
        progress.position,
        hidden,
        opened.logits,
    )
    return context
