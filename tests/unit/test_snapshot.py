"""Saved contexts: bit by bit what was saved, found whole or not at all."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from mom_core import Engine, EngineConfig, PrefillProgress, SnapshotUnusable
from mom_core.generate.checkpoint import CheckpointWriter
from mom_core.kv.store import LayerKV
from mom_core.snapshot.manifest import MANIFEST, block_digests, read_manifest
from mom_core.snapshot.open import check_files
from tests.equivalence.contents import contents
from tests.equivalence.models import make_model, make_prompt, plain_greedy, shared_model
from tests.unit.damage import damage

KINDS = ["llama", "gemma2", "qwen3.5", "lfm2"]
CONFIG = EngineConfig(chunk_tokens=8)


def keep(engine: Engine, prompt: list[int], folder: Path, draws: int | None = None) -> None:
    """Reads a prompt and keeps it; ends after so many events."""
    checkpoints = CheckpointWriter(folder, engine.fingerprint, engine.name, extra={"is": "ours"})
    events = engine.generate(prompt, max_new_tokens=3, checkpoints=checkpoints)
    for number, _ in enumerate(events, 1):
        if number == draws:
            break
    events.close()
    checkpoints.wait()
    assert not checkpoints.problem


@pytest.mark.parametrize("kv", ["device", "host", "disk"])
@pytest.mark.parametrize("family", KINDS)
def test_a_reopened_context_is_the_same_bit_by_bit(family: str, kv: Any, tmp_path: Path) -> None:
    model, prompt = shared_model(family), make_prompt(100)
    config = EngineConfig(chunk_tokens=32, kv=kv, scratch_folder=tmp_path / "scratch")
    engine = Engine(model, config=config)
    keep(engine, prompt, tmp_path / "kept")
    engine.context.crop(100)
    other = Engine(model, config=config)
    context = other.reopen(tmp_path / "kept")
    assert context.token_ids == tuple(prompt)
    for mine, saved in zip(contents(context), contents(engine.context), strict=True):
        assert torch.equal(mine, saved)
    other.use(context)
    events = list(other.generate(prompt, max_new_tokens=6))
    assert not any(isinstance(event, PrefillProgress) for event in events)
    assert other.generate_ids(prompt, max_new_tokens=6) == plain_greedy(model, prompt, 6)
    longer = prompt + make_prompt(9, seed=4)
    assert other.generate_ids(longer, max_new_tokens=6) == plain_greedy(model, longer, 6)
    # Nothing that went on with it has reached the files.
    check_files(tmp_path / "kept", read_manifest(tmp_path / "kept"))
    engine.close()
    other.close()


def test_files_are_mapped_and_only_read(tmp_path: Path) -> None:
    engine = Engine(shared_model("llama"), config=CONFIG)
    prompt = make_prompt(100)
    keep(engine, prompt, tmp_path / "kept")
    context = engine.reopen(tmp_path / "kept")
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(tmp_path / "kept" / "layer-000") in maps.read_text()
    engine.use(context)
    engine.context.crop(40)
    other = prompt[:40] + make_prompt(40, seed=8)
    assert engine.generate_ids(other, max_new_tokens=4) == plain_greedy(engine.model, other, 4)
    check_files(tmp_path / "kept", read_manifest(tmp_path / "kept"))


@pytest.mark.parametrize("family", KINDS)
def test_branches_share_memory_and_never_see_each_other(family: str) -> None:
    model, prompt = shared_model(family), make_prompt(60)
    engine = Engine(model, config=CONFIG)
    engine.logits(prompt)
    branches = [engine.context.branch() for _ in range(3)]
    for layer, mine in zip(branches[0].store.layers, engine.context.store.layers, strict=True):
        if isinstance(layer, LayerKV) and isinstance(mine, LayerKV):
            (one,), (other,) = layer.segments(), mine.segments()
            assert one.keys.data_ptr() == other.keys.data_ptr()
    for seed, context in enumerate([engine.context, *branches]):
        context.crop(60 - 16 * seed)
        engine.use(context)
        chat = prompt[: context.tokens] + make_prompt(12, seed=seed)
        engine.generate_ids(chat, max_new_tokens=4)
    for context in branches:
        engine.use(context)
        chat = list(context.token_ids)
        assert engine.generate_ids(chat, max_new_tokens=4) == plain_greedy(model, chat, 4)


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("draws", [3, 8, 12, 17])
def test_a_reading_goes_on_in_another_process_bit_by_bit(
    family: str, draws: int, tmp_path: Path
) -> None:
    model, prompt = shared_model(family), make_prompt(40)
    plain = Engine(model, config=CONFIG)
    logits = plain.logits(prompt)
    keep(Engine(model, config=CONFIG), prompt, tmp_path / "kept", draws)
    manifest = read_manifest(tmp_path / "kept")
    if draws >= 5 * len(plain.context.store.layers):
        assert manifest.progress is None
        return
    assert manifest.progress is not None
    engine = Engine(model, config=CONFIG)
    engine.use(engine.reopen(tmp_path / "kept"))
    checkpoints = CheckpointWriter(tmp_path / "kept", engine.fingerprint, "tiny", found=manifest)
    events = list(engine.generate(prompt, max_new_tokens=1, checkpoints=checkpoints))
    checkpoints.wait()
    steps = sum(isinstance(event, PrefillProgress) for event in events)
    assert steps == 5 * len(engine.context.store.layers) - draws
    assert torch.equal(engine.logits(prompt), logits)
    # The same files, gone on with, are the whole now.
    whole = Engine(model, config=CONFIG)
    whole.use(whole.reopen(tmp_path / "kept"))
    for mine, truth in zip(contents(whole.context), contents(plain.context), strict=True):
        assert torch.equal(mine, truth)


def test_nobody_else_may_look(tmp_path: Path) -> None:
    engine = Engine(shared_model("llama"), config=CONFIG)
    keep(engine, make_prompt(40), tmp_path / "kept")
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o700
    files = list((tmp_path / "kept").iterdir())
    assert len(files) == 6
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def damaged_each(folder: Path, copy: Path, times: int) -> int:
    """Damages every file in every way; how often it was found."""
    engine = Engine(shared_model("llama"), config=CONFIG)
    found = 0
    for number in range(times):
        for name in sorted(os.listdir(folder)):
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(folder, copy)
            damage(copy / name, random.Random(number))
            with pytest.raises(SnapshotUnusable, match=r"damaged|not a prepared|another version"):
                engine.reopen(copy)
            found += 1
    return found


def test_every_damage_is_found(tmp_path: Path) -> None:
    engine = Engine(shared_model("llama"), config=CONFIG)
    keep(engine, make_prompt(70), tmp_path / "kept")
    assert damaged_each(tmp_path / "kept", tmp_path / "copy", 4) == 24


@pytest.mark.slow
def test_every_damage_is_found_by_long_fuzzing(tmp_path: Path) -> None:
    engine = Engine(shared_model("llama"), config=CONFIG)
    keep(engine, make_prompt(70), tmp_path / "kept", 7)
    damaged_each(tmp_path / "kept", tmp_path / "copy", 200)


def test_what_another_model_read_is_named_and_not_used(tmp_path: Path) -> None:
    engine = Engine(make_model("llama"), config=CONFIG)
    keep(engine, make_prompt(40), tmp_path / "kept")
    with torch.no_grad():
        # The smallest change there is, far from both ends.
        weight = engine.model.model.layers[1].mlp.up_proj.weight
        weight[40, 20] = torch.nextafter(weight[40, 20], torch.tensor(9.0))
    with pytest.raises(SnapshotUnusable, match="with other weights, so it cannot be used"):
        Engine(engine.model, config=CONFIG).reopen(tmp_path / "kept")
    longer = EngineConfig(context_tokens=1024, extend="yarn")
    with pytest.raises(SnapshotUnusable, match=r"configuration|rotary positions"):
        Engine(make_model("llama"), config=longer).reopen(tmp_path / "kept")
    with pytest.raises(SnapshotUnusable, match=r"another dtype|other weights"):
        Engine(make_model("llama").bfloat16(), config=CONFIG).reopen(tmp_path / "kept")


def test_another_version_is_named(tmp_path: Path) -> None:
    engine = Engine(shared_model("llama"), config=CONFIG)
    keep(engine, make_prompt(40), tmp_path / "kept")
    path = tmp_path / "kept" / MANIFEST
    path.write_text(path.read_text().replace('"version": 1', '"version": 7'))
    with pytest.raises(SnapshotUnusable, match=r"another version of mom-chat \(format 7; this on"):
        engine.reopen(tmp_path / "kept")
    with pytest.raises(SnapshotUnusable, match=r"has no manifest.json; it is not a prepared doc"):
        engine.reopen(tmp_path)


def test_saving_goes_on_while_the_context_changes(tmp_path: Path, monkeypatch: Any) -> None:
    """The writer is slowed down, and everything happens to the context meanwhile."""
    import threading

    from mom_core.snapshot import write as snapshot

    may_write = threading.Event()
    write = snapshot.write_tensors

    def waits(*args: Any, **kwargs: Any) -> Any:
        may_write.wait(20)
        return write(*args, **kwargs)

    monkeypatch.setattr(snapshot, "write_tensors", waits)
    model, prompt = shared_model("llama"), make_prompt(64)
    engine = Engine(model, config=CONFIG)
    checkpoints = CheckpointWriter(tmp_path / "kept", engine.fingerprint, "tiny")
    # Answers do not wait for the disk.
    list(engine.generate(prompt, max_new_tokens=5, checkpoints=checkpoints))
    engine.context.crop(10)
    engine.generate_ids(prompt[:10] + make_prompt(50, seed=3), max_new_tokens=5)
    may_write.set()
    checkpoints.wait()
    other = Engine(model, config=CONFIG)
    other.use(other.reopen(tmp_path / "kept"))
    assert other.context.token_ids == tuple(prompt)
    assert other.generate_ids(prompt, max_new_tokens=5) == plain_greedy(model, prompt, 5)


def test_a_full_disk_costs_only_the_keeping(tmp_path: Path, monkeypatch: Any) -> None:
    from mom_core.snapshot import tensor_file

    engine = Engine(shared_model("llama"), config=CONFIG)
    prompt = make_prompt(64)
    for allowed in range(5):
        left = [allowed]

        def fsync(descriptor: int, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(tensor_file.os, "fsync", fsync)
        checkpoints = CheckpointWriter(tmp_path / "kept", engine.fingerprint, "tiny")
        engine.context.crop(0)
        list(engine.generate(prompt, max_new_tokens=3, checkpoints=checkpoints))
        checkpoints.wait()
        assert "could not be kept" in checkpoints.problem
        assert "No space left on device" in checkpoints.problem
        assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("the pages are mad"), "RuntimeError: the pages are mad"),
        (MemoryError(), "memory was full"),
        (torch.OutOfMemoryError("CUDA out of memory."), "memory was full"),
        (ZeroDivisionError(), "ZeroDivisionError"),
    ],
    ids=["unknown", "host", "device", "arithmetic"],
)
@pytest.mark.parametrize("fails", ["write_tensors", "along_tokens", "write_aside", "block_digests"])
def test_any_failure_of_keeping_is_told_and_costs_only_the_keeping(
    error: Exception, words: str, fails: str, tmp_path: Path, monkeypatch: Any
) -> None:
    """In the thread that writes, and in the reading's own that writes a checkpoint."""
    from mom_core.generate import checkpoint as reuse
    from mom_core.snapshot import write as snapshot

    def failing(*args: Any, **kwargs: Any) -> Any:
        raise error

    monkeypatch.setattr(reuse, "_GUESSED_BYTES_PER_SECOND", 1e15)
    monkeypatch.setattr(snapshot, fails, failing)
    model, prompt = shared_model("llama"), make_prompt(64)
    for draws in (None, 6):
        engine = Engine(model, config=CONFIG)
        checkpoints = CheckpointWriter(tmp_path / "kept", engine.fingerprint, "tiny")
        events = engine.generate(prompt, max_new_tokens=3, checkpoints=checkpoints)
        for number, _ in enumerate(events, 1):
            if number == draws:
                break
        events.close()
        checkpoints.wait()
        assert f"could not be kept in {tmp_path}: {words}" in checkpoints.problem
        assert "The answer is not touched by it; " in checkpoints.problem
        assert not (tmp_path / "kept").exists()
        assert engine.generate_ids(prompt, max_new_tokens=3) == plain_greedy(model, prompt, 3)


def test_blocks_tell_a_common_beginning() -> None:
    one = make_prompt(300)
    other = one[:200] + make_prompt(100, seed=2)
    mine, theirs = block_digests(one), block_digests(other)
    assert len(mine) == 4
    assert [a == b for a, b in zip(mine, theirs, strict=True)] == [True, True, True, False]


@pytest.mark.slow
def test_checkpoints_cost_a_hundredth_of_the_reading(tmp_path: Path, monkeypatch: Any) -> None:
    """Of a long reading by a clock of our own, on a disk whose speed changes."""
    from types import SimpleNamespace

    from mom_core.generate import checkpoint as reuse
    from mom_core.kv.store import KVStore
    from mom_core.kv.tiers import device_tier
    from mom_core.kv.transfer import HiddenStates, Lanes
    from mom_core.snapshot.write import SnapshotWriter

    cpu, layers = torch.device("cpu"), 300
    now, spent, written_at = [0.0], [0.0], list[int]()
    monkeypatch.setattr(reuse.time, "perf_counter", lambda: now[0])
    put_hidden = SnapshotWriter.put_hidden

    def slow(writer: SnapshotWriter, pieces: Any) -> str:
        seconds = 0.4 if now[0] < 150 else 1.6
        now[0] += seconds
        spent[0] += seconds
        return put_hidden(writer, pieces)

    monkeypatch.setattr(SnapshotWriter, "put_hidden", slow)
    store = KVStore(layers, device_tier(cpu))
    hidden = HiddenStates(device_tier(cpu), cpu, Lanes(cpu), tokens=4, width=8, dtype=torch.float32)
    run = SimpleNamespace(store=store, past=0, hidden=hidden, logits=None, position=0, layer=0)
    run.wait_for_copies = lambda: None
    checkpoints = CheckpointWriter(tmp_path / "kept", {}, "tiny")
    checkpoints.begin([1, 2, 3, 4], store)
    for layer in range(1, layers):
        now[0] += 1.0
        kv = store.layers[layer - 1]
        assert isinstance(kv, LayerKV)
        kv.append(torch.ones(1, 1, 4, 8), torch.ones(1, 1, 4, 8))
        run.layer = layer
        checkpoints.layer_done(run)
        while not checkpoints.is_idle:
            pass
        if (tmp_path / "kept" / MANIFEST).exists():
            progress = read_manifest(tmp_path / "kept").progress
            assert progress is not None
            if progress.layer not in written_at:
                written_at.append(progress.layer)
    checkpoints.wait()
    assert len(written_at) >= 3
    # The first is written at a guessed speed, and one while the disk became slower.
    assert spent[0] - 0.4 - 1.6 < 0.01 * layers
    assert max(b - a for a, b in itertools.pairwise(written_at)) < 180
