"""Faults on purpose: how often a reading, an answer and what is kept survived each kind.

    python -m benchmarks.faults [--times 20] [--seed 0] [--kind WORDS] [--save]

Children of this program read, answer and keep a prompt with a tiny random model, and are killed at
random moments, terminated, or find disk or memory full; files are damaged bit by bit; two processes
share a library; clocks jump. After each fault the same question is asked by a new process, as a
person would: survived means that the answer is plain transformers' own, token for token, and that
the library holds whole entries only.

Prints a table and one JSON line, which `--save` appends to `benchmarks/results/faults.jsonl`; ends
with 1 if anything was not survived.

Source: ours.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from app.library.entry import DocumentInfo
from app.library.library import Library
from app.library.reuse import Reuse
from benchmarks import record
from mom_core import Engine, EngineConfig, Finished, Token
from mom_core.kv.tiers import Tier

PROMPT_TOKENS, NEW_TOKENS, CHUNK_TOKENS = 192, 12, 16
VOCABULARY = 97
_WAIT_SECONDS = 120


def tiny_model() -> Any:
    """A random model of three layers, the same each time."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def prompt_of(seed: int) -> list[int]:
    """Random token ids."""
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = torch.randint(0, VOCABULARY, (PROMPT_TOKENS,), generator=generator).tolist()
    return ids


@torch.no_grad()
def truth_of(model: Any, prompt: list[int]) -> list[int]:
    """Plain transformers' greedy answer."""
    ids = model.generate(torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, do_sample=False)
    answer: list[int] = ids[0, len(prompt) :].tolist()
    return answer


@dataclass(slots=True)
class Count:
    """Of one kind of fault.

    Args:
        kind: in words.
        tried: faults.
        survived: how many were survived.
        resumed: how many of them resumed the work that the fault had interrupted.
        faults: what went wrong with the others.
    """

    kind: str
    tried: int = 0
    survived: int = 0
    resumed: int = 0
    faults: list[str] = field(default_factory=list)


class Faults:
    """One model, its truth, and a library to be maltreated.

    Args:
        home: the library's.
        seed: for everything random.
    """

    def __init__(self, home: Path, seed: int = 0) -> None:
        self.home = home
        self.state = random.Random(seed)
        self.model = tiny_model()
        self._truth: dict[int, list[int]] = {}

    def ask(self, seed: int = 0) -> Finished:
        """Asks as a new process would, and checks the answer and the library.

        Raises:
            AssertionError: the answer is wrong, or what is kept is not whole.
        """
        prompt = prompt_of(seed)
        reuse = Reuse(Library(self.home))
        engine = Engine(self.model, config=EngineConfig(chunk_tokens=CHUNK_TOKENS))
        documents = [DocumentInfo("a.txt", "")]
        events = list(
            reuse.generate(engine, prompt, documents=documents, max_new_tokens=NEW_TOKENS)
        )
        reuse.close()
        engine.close()
        ids = [event.token_id for event in events if isinstance(event, Token)]
        if seed not in self._truth:
            self._truth[seed] = truth_of(self.model, prompt)
        if ids != self._truth[seed]:
            raise AssertionError(f"a wrong answer: {ids} for {self._truth[seed]}")
        finished = events[-1]
        assert isinstance(finished, Finished)
        return finished

    def check(self) -> None:
        """All entries are whole, and nothing of ended processes is left.

        Raises:
            AssertionError: they are not.
        """
        library = Library(self.home)
        damaged = [entry.problem for entry in library.verify() if entry.problem]
        if damaged:
            raise AssertionError(damaged[0])
        left = [path.name for path in library.folder.glob(".deleted-*")]
        left += [path.name for path in (library.folder / ".locks").glob("*.lock")]
        if left:
            raise AssertionError(f"left behind: {left}")

    def empty(self) -> None:
        """Forgets everything."""
        shutil.rmtree(self.home, ignore_errors=True)

    # The kinds.

    def killed(self, phase: str, number: signal.Signals) -> bool:
        """A process is killed at a random moment of a phase; returns whether work was resumed."""
        self.empty()
        child = _start(self.home)
        try:
            events = _events_of(child)
            until = {"prefill": "p", "decode": "t", "save": "s"}[phase]
            most = {"prefill": 36, "decode": NEW_TOKENS, "save": 1}[phase]
            wanted = self.state.randrange(1, most + 1)
            for event in events:
                wanted -= event == until
                if not wanted:
                    break
            # Not between two steps, but anywhere.
            time.sleep(self.state.random() * (0.03 if phase == "save" else 0.01))
            child.send_signal(number)
            child.wait(_WAIT_SECONDS)
        finally:
            child.kill()
            child.wait()
            if child.stdout is not None:
                child.stdout.close()
        if number == signal.SIGTERM and child.returncode not in (0, 128 + signal.SIGTERM):
            raise AssertionError(f"SIGTERM ended the process with {child.returncode}")
        finished = self.ask()
        self.check()
        return finished.resumed_fraction > 0 or finished.reused_tokens > 0

    def full_disk(self) -> bool:
        """The disk is full from a random write on."""
        self.empty()
        with _no_space_after(self.state.randrange(14)):
            self.ask()
        self.check()
        self.ask()
        self.check()
        return False

    def full_memory(self) -> bool:
        """A random allocation, and perhaps the one after it, find no memory; host or device.

        Where three in a row find none, an answer ends with a sentence (tests/equivalence).
        """
        self.empty()
        error = self.state.choice([MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")])
        with _no_memory_from(self.state.randrange(12), self.state.randrange(1, 3), error):
            self.ask()
        self.check()
        return False

    def damaged(self) -> bool:
        """A random file loses its end or has a bit flipped."""
        self.ask()
        folder = self.home / "library"
        files = sorted(path for path in folder.glob("[!.]*/*") if path.is_file())
        path = self.state.choice(files)
        data = bytearray(path.read_bytes())
        place = self.state.randrange(len(data))
        if self.state.random() < 0.3:
            data = data[:place]
        else:
            data[place] ^= 1 << self.state.randrange(8)
        path.write_bytes(data)
        self.ask()
        return False

    def foreign(self) -> bool:
        """The library has an entry of another model, and one of another version."""
        self.empty()
        self.ask()
        entry = Library(self.home).list()[0]
        manifest = entry.folder / "manifest.json"
        content = json.loads(manifest.read_text())
        if self.state.random() < 0.5:
            content["manifest"]["version"] = self.state.randrange(2, 99)
        else:
            content["manifest"]["fingerprint"]["weights"] = "0" * 32
        manifest.write_text(json.dumps(content))
        finished = self.ask()
        if finished.reused_tokens:
            raise AssertionError("a foreign entry was used")
        return False

    def read_only(self) -> bool:
        """The library's folder takes no file."""
        self.empty()
        Library(self.home)
        with _no_space_after(0, error=30):
            self.ask()
        self.ask()
        return False

    def shared(self) -> bool:
        """Two processes read, keep and evict in one library."""
        self.empty()
        children = [_start(self.home) for _ in range(2)]
        library = Library(self.home)
        while any(child.poll() is None for child in children):
            library.make_room(2**40)
            for entry in library.list():
                if entry.is_whole and self.state.random() < 0.2:
                    library.forget(entry.id)
            time.sleep(0.01)
        for child in children:
            assert child.stdout is not None
            child.stdout.close()
            if child.returncode != 0:
                raise AssertionError(f"a process ended with {child.returncode}")
        finished = self.ask()
        self.check()
        return finished.reused_tokens > 0

    def clock_jump(self) -> bool:
        """The times of all files are moved by years."""
        self.ask()
        for path in (self.home / "library").rglob("*"):
            when = self.state.randrange(2**31)
            os.utime(path, (when, when))
        finished = self.ask()
        if not finished.reused_tokens:
            raise AssertionError("what was kept was not found again")
        return False


def run(home: Path, times: int, seed: int = 0, kinds: str = "") -> list[Count]:
    """Tries every kind of fault.

    Args:
        home: a library's folder; emptied.
        times: how often each kind is done.
        seed: for everything random.
        kinds: only those whose name has these words in it.
    """
    faults = Faults(home, seed)
    tries: dict[str, Callable[[], bool]] = {
        "SIGKILL in prefill": lambda: faults.killed("prefill", signal.SIGKILL),
        "SIGKILL in decode": lambda: faults.killed("decode", signal.SIGKILL),
        "SIGKILL while saving": lambda: faults.killed("save", signal.SIGKILL),
        "SIGTERM": lambda: faults.killed("prefill", signal.SIGTERM),
        "disk full": faults.full_disk,
        "memory full": faults.full_memory,
        "folder not writable": faults.read_only,
        "bit flip or truncation": faults.damaged,
        "foreign or other version": faults.foreign,
        "two processes": faults.shared,
        "clock jump": faults.clock_jump,
    }
    counts = []
    for kind, attempt in tries.items():
        if kinds not in kind:
            continue
        count = Count(kind)
        faults.empty()
        for _ in range(times):
            count.tried += 1
            try:
                count.resumed += attempt()
                count.survived += 1
            except Exception as error:  # noqa: BLE001 - any fault is what is looked for
                count.faults.append(f"{type(error).__name__}: {error}")
        counts.append(count)
    return counts


# A child: reads and answers, and says where it is.


def _child(home: Path) -> int:
    from app.interrupts import interrupts
    from mom_core import PrefillProgress

    torch.set_num_threads(1)
    reuse = Reuse(Library(home))
    engine = Engine(tiny_model(), config=EngineConfig(chunk_tokens=CHUNK_TOKENS))
    # Before the phases, so that a kill hits what it is meant for.
    assert engine.fingerprint
    documents = [DocumentInfo("a.txt", "")]
    events = reuse.generate(engine, prompt_of(0), documents=documents, max_new_tokens=NEW_TOKENS)
    with interrupts() as asked:
        for event in events:
            kind = "p" if isinstance(event, PrefillProgress) else "t"
            sys.stdout.write("f" if isinstance(event, Finished) else kind)
            sys.stdout.flush()
            if asked.signal_number is not None:
                break
        events.close()
        sys.stdout.write("s")
        sys.stdout.flush()
        reuse.close()
    return 0 if asked.signal_number is None else 128 + asked.signal_number


def _start(home: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.faults", "--child", str(home)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def _events_of(child: subprocess.Popen[bytes]) -> Iterator[str]:
    assert child.stdout is not None
    while byte := child.stdout.read(1):
        yield byte.decode()


@contextmanager
def _no_space_after(writes: int, error: int = 28) -> Iterator[None]:
    """Files of the library find no space from this many flushes on."""
    flush, left = os.fsync, [writes]

    def fsync(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(error, os.strerror(error))
        flush(descriptor)

    with mock.patch.object(os, "fsync", fsync):
        yield


@contextmanager
def _no_memory_from(first: int, times: int, error: Exception) -> Iterator[None]:
    """So many of the places for keys, values and hidden states are not given, from the first on.

    Those in files take no memory.
    """
    empty, count = Tier.empty, [0]

    def fails(tier: Tier, *shape: int, dtype: torch.dtype) -> torch.Tensor:
        count[0] += tier.files is None
        if tier.files is None and first < count[0] <= first + times:
            raise error
        return empty(tier, *shape, dtype=dtype)

    with mock.patch.object(Tier, "empty", fails):
        yield


def report(counts: list[Count]) -> str:
    """The table: a line a kind, what went wrong under it, and all of them."""
    lines = [f"{'fault':26} {'tried':>6} {'survived':>9} {'resumed':>8}"]
    for count in counts:
        lines.append(f"{count.kind:26} {count.tried:6} {count.survived:9} {count.resumed:8}")
        lines += [f"    {fault}" for fault in count.faults]
    tried, survived, resumed = (
        sum(getattr(count, name) for count in counts) for name in ("tried", "survived", "resumed")
    )
    lines.append(f"{'all':26} {tried:6} {survived:9} {resumed:8}")
    return "\n".join(lines)


def main() -> None:
    """Prints how many faults of each kind were tried and survived."""
    parser = argparse.ArgumentParser(description="Faults on purpose.")
    parser.add_argument("--times", type=int, default=20, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", default="", help="only kinds with these words")
    parser.add_argument("--save", action="store_true", help="add a line to benchmarks/results")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        sys.exit(_child(arguments.child))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        counts = run(Path(folder) / "home", arguments.times, arguments.seed, arguments.kind)
    print(report(counts))
    result = {
        **record.describe_run(),
        "suite": "faults",
        "times": arguments.times,
        "seed": arguments.seed,
        "seconds": time.perf_counter() - started,
        "kinds": [asdict(count) for count in counts],
    }
    if arguments.save:
        print(f"added to {record.append('faults', result)}")
    else:
        print(json.dumps(result))
    sys.exit(any(count.faults for count in counts))


if __name__ == "__main__":
    main()
