"""The disk tier: private files, gone at the end or at the next start, full disks, bounded pages."""

from __future__ import annotations

import errno
import gc
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from mom_core import Engine, EngineConfig, InvalidSetting, OutOfMemory
from mom_core.forecast.capacity import HOST_SHARE, Room
from mom_core.forecast.peak_bytes import forecast_memory
from mom_core.hardware.host import status_bytes
from mom_core.kv.mapped import MappedFiles
from mom_core.strategy import Strategy
from tests.equivalence.models import (
    make_model,
    make_prompt,
    plain_greedy,
    plain_logits,
    relative_error,
    shared_model,
)


def files_in(root: Path) -> list[Path]:
    return sorted(root.glob("*/*.mapped"))


def disk_engine(root: Path, **settings: Any) -> Engine:
    config = EngineConfig(kv="disk", hidden="disk", chunk_tokens=7, scratch_folder=root, **settings)
    return Engine(shared_model("llama"), config=config)


def test_files_are_private_and_in_one_folder(tmp_path: Path) -> None:
    root = tmp_path / "scratch"
    engine = disk_engine(root)
    engine.logits(make_prompt(30))
    # Keys and values of three layers.
    assert len(files_in(root)) == 6
    (run,) = root.glob("mom-chat-run-*")
    for folder in (root, run):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in files_in(root):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # Blocks are reserved: no write can find the disk full.
    assert all(path.stat().st_blocks * 512 >= path.stat().st_size for path in files_in(root))


def test_files_go_with_the_context_and_the_engine(tmp_path: Path) -> None:
    engine = disk_engine(tmp_path)
    prompt = make_prompt(30)
    truth = engine.logits(prompt)
    other = engine.new_context()
    list(engine.read(prompt, other))
    assert len(files_in(tmp_path)) == 12
    del other
    gc.collect()
    assert len(files_in(tmp_path)) == 6
    engine.context.crop(0)
    assert not files_in(tmp_path)
    engine.logits(prompt)
    engine.close()
    assert not list(tmp_path.glob("mom-chat-run-*"))
    # It can go on.
    assert torch.equal(engine.logits(prompt), truth)
    del engine
    gc.collect()
    assert not list(tmp_path.glob("mom-chat-run-*"))


_HOLDS_A_FILE = """
import sys
import threading
import time
from collections import OrderedDict
from pathlib import Path
import torch
from mom_core.kv.mapped import MappedFiles
files = MappedFiles(Path(sys.argv[1]))
held = files.empty(1000, dtype=torch.float32)
print("made", flush=True)
sys.stdin.read()
"""


def holder(root: Path) -> subprocess.Popen[str]:
    """Another process with a file in the scratch folder."""
    return subprocess.Popen(
        [sys.executable, "-c", _HOLDS_A_FILE, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def test_the_next_start_clears_up_after_a_kill_and_leaves_others_alone(tmp_path: Path) -> None:
    mine = tmp_path / "mom-chat-run-of-mine"
    mine.mkdir()
    (mine / "1.mapped").write_text("not made by us")
    killed, running = holder(tmp_path), holder(tmp_path)
    for process in (killed, running):
        assert process.stdout is not None
        assert process.stdout.readline() == "made\n"
    assert len(files_in(tmp_path)) == 3
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert len(files_in(tmp_path)) == 3
    engine = disk_engine(tmp_path)
    assert len(files_in(tmp_path)) == 2
    engine.logits(make_prompt(30))
    assert len(files_in(tmp_path)) == 8
    # At its end the other removes its own.
    assert running.communicate("")[0] == ""
    assert running.returncode == 0
    assert len(files_in(tmp_path)) == 7
    engine.close()
    assert files_in(tmp_path) == [mine / "1.mapped"]


def test_a_disk_without_room_is_a_sentence_before_anything_is_read(tmp_path: Path) -> None:
    engine = disk_engine(tmp_path)
    prompt = make_prompt(20)
    engine.logits(prompt)
    usage = mock.Mock(free=2**28 + 1000)
    with (
        mock.patch("shutil.disk_usage", return_value=usage),
        pytest.raises(OutOfMemory, match=r"The disk is full: 0\.4 MiB are needed in .*Make room"),
    ):
        next(engine.read(prompt + make_prompt(40, seed=1)))
    assert engine.context.token_ids == tuple(prompt)


@pytest.mark.parametrize("fails_at", [1, 2, 5])
def test_a_disk_that_fills_up_while_reading_leaves_the_context_right(
    tmp_path: Path, fails_at: int
) -> None:
    engine = disk_engine(tmp_path)
    prompt = make_prompt(40)
    reserve, calls = os.posix_fallocate, 0

    def full(descriptor: int, start: int, size_bytes: int) -> None:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        reserve(descriptor, start, size_bytes)

    with (
        mock.patch("os.posix_fallocate", full),
        pytest.raises(OutOfMemory, match="The disk is full"),
    ):
        engine.logits(prompt)
    assert engine.context.tokens == 0
    assert not files_in(tmp_path)
    assert engine.held_bytes.working("disk") == 0
    assert engine.generate_ids(prompt, max_new_tokens=8) == plain_greedy(engine.model, prompt, 8)


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    engine = disk_engine(tmp_path / "file" / "scratch")
    with pytest.raises(InvalidSetting, match=r"The scratch folder .* is not writable"):
        engine.logits(make_prompt(20))


def test_pages_leave_memory_and_keep_what_was_written() -> None:
    before = status_bytes("RssFile")
    if not before:
        pytest.skip("this system does not tell how many pages of files are in memory")
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        files = MappedFiles(Path(folder), resident_limit_bytes=12 << 20)
        tensors = []
        for i in range(8):
            tensor = files.empty(1 << 20, dtype=torch.float32)
            tensor.fill_(i)
            files.touch(tensor)
            tensors.append(tensor)
            assert status_bytes("RssFile") - before < 16 << 20
        for i, tensor in enumerate(tensors):
            assert bool((tensor == i).all())
            files.touch(tensor)
        assert status_bytes("RssFile") - before < 16 << 20
        tensor.add_(1)
        files.drop(tensor[1 << 19 :])
        assert bool((tensor == 8).all())
        files.close()


def test_two_threads_use_the_pages_at_once(tmp_path: Path) -> None:
    """The run that computes, and the thread that keeps what was read.

    Between noting a use and moving it to the end the other one may take it out, though the
    interpreter seldom turns to another thread just there.
    """

    class Turns(OrderedDict[int, int]):
        def move_to_end(self, key: int, last: bool = True) -> None:
            time.sleep(1e-5)
            super().move_to_end(key, last)

    files = MappedFiles(tmp_path, resident_limit_bytes=40 * 4096)
    files._in_use = Turns()
    tensors = [files.empty(1024, dtype=torch.float32) for _ in range(80)]
    problems: list[BaseException] = []
    end = time.monotonic() + 0.3

    def use(seed: int) -> None:
        state = random.Random(seed)
        try:
            while time.monotonic() < end:
                files.touch(*state.sample(tensors, 3))
                files.drop(state.choice(tensors))
        except BaseException as error:  # noqa: BLE001 - told by the test
            problems.append(error)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems[0]
    assert sum(files._in_use.values()) <= 40 * 4096
    files.close()


def test_a_cap_sends_keys_and_values_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompt = make_model("llama"), make_prompt(60)
    engine = Engine(model)
    in_memory, on_disk = (
        forecast_memory(
            engine.shape,
            None,
            60,
            Strategy.named("layer-streaming", kv=kv, hidden=kv, device_type="cpu"),
        ).one_memory_peak_bytes
        for kv in ("device", "disk")
    )
    assert on_disk < in_memory
    # What the program takes beside the model: the weights are all that it has of it.
    others = 1 << 30
    monkeypatch.setattr(
        "mom_core.placement.own_bytes", lambda: others + engine.held_bytes.of_kind("weights")
    )
    cap = others + int((in_memory + on_disk) / 2 / HOST_SHARE)
    engine = Engine(model, config=EngineConfig(host_memory=cap, scratch_folder=tmp_path))
    assert relative_error(engine.logits(prompt), plain_logits(model, prompt)) < 1e-4
    assert engine.held_bytes["disk", "kv"] == engine.context.kv_bytes > 0
    assert len(files_in(tmp_path)) == 6
    free = Engine(model, config=EngineConfig(host_memory=2**50, scratch_folder=tmp_path))
    free.logits(prompt)
    assert free.held_bytes["disk", "kv"] == 0
    engine.close()


def test_what_does_not_fit_a_cap_is_refused(tmp_path: Path) -> None:
    engine = Engine(make_model("llama"))
    engine.logits(make_prompt(60))
    engine.configure(EngineConfig(host_memory=2**20, scratch_folder=tmp_path))
    words = (
        r"61 tokens of .* do not fit: .* MiB in host memory \(.*of 0 MiB there \(what is allowed"
    )
    with pytest.raises(OutOfMemory, match=words):
        engine.logits(make_prompt(61))
    # Without a cap it is tried, and the engine tells that it may not go well.
    engine.configure(EngineConfig())
    no_room = Room(device_bytes=None, host_bytes=0)
    with mock.patch.object(engine.placement, "room", return_value=no_room):
        engine.logits(make_prompt(62))
    assert engine.last_forecast is not None
    assert not engine.last_forecast.fits
    assert "62 tokens of" in engine.last_forecast.sentence
    engine.logits(make_prompt(63))
    assert engine.last_forecast is not None
    assert engine.last_forecast.fits


def test_what_was_read_moves_when_the_tier_changes(tmp_path: Path) -> None:
    model, prompt = make_model("qwen2-window"), make_prompt(50)
    engine = Engine(model, config=EngineConfig(kv="device"))
    engine.logits(prompt)
    for kv in ("disk", "host", "device", "disk"):
        engine.configure(EngineConfig(kv=kv, scratch_folder=tmp_path))
        longer = engine.context.token_ids + tuple(make_prompt(5, seed=len(kv)))
        finished = list(engine.generate(longer, max_new_tokens=3))[-1]
        assert finished.reused_tokens == len(longer) - 5
        assert relative_error(engine.logits(longer), plain_logits(model, list(longer))) < 1e-4
    engine.configure(EngineConfig(kv="device", scratch_folder=tmp_path))
    with (
        mock.patch("os.posix_fallocate", side_effect=OSError(errno.ENOSPC, "full")),
        pytest.raises(OutOfMemory),
    ):
        engine.configure(EngineConfig(kv="disk", scratch_folder=tmp_path))
    assert engine.config.kv == "device"
    assert engine.held_bytes["device", "kv"] == engine.context.kv_bytes > 0
    engine.close()
