"""Documents: quality of the text against poppler, speed and memory against pypdf, a source tree.

    python -m benchmarks.documents [--save] [--tree PATH]

Needs the manuals of the Debian packages `r-doc-pdf` and `gnuplot-doc`, and `pdftotext` of
`poppler-utils`. Prints tables and one JSON line; `--save` appends the line to
`benchmarks/results/documents.jsonl`.

Quality: words in common with `pdftotext -layout`, an independent reader, with header dropping and
hyphen joining off; order is the share of words that lie on the longest common order of a page.
Speed: from the path to the number of tokens, no cache, against pypdf page by page and the same
tokenizer, in turns. Memory: what this process and those that parse hold at most, over what this one
held before.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any

import psutil
import pypdf
import pypdfium2

from app.documents import ReadOptions, Section, read, stream
from app.prompt.prompt import tokenize
from app.prompt.tokenizer_files import load_encoder
from mom_core.generators import draw

RESULTS = Path(__file__).parent / "results" / "documents.jsonl"
MANUALS = [
    *sorted(Path("/usr/share/R/doc/manual").glob("R-*.pdf")),
    Path("/usr/share/doc/gnuplot/gnuplot.pdf"),
    Path("/usr/share/R/doc/manual/fullrefman.pdf"),
]
LONGEST = MANUALS[-1]
AS_PRINTED = ReadOptions(drops_running_lines=False, joins_hyphens=False)
_LOOK_EVERY_SECONDS = 0.02


def words(text: str) -> list[str]:
    """Letters and digits of a text; ligatures and the like written out."""
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text))


def quality(path: Path) -> dict[str, Any]:
    """Words and order of one manual against poppler's."""
    command = ["pdftotext", "-layout", str(path), "-"]
    theirs = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    ours = [words(section.text) for section in read(path, options=AS_PRINTED).sections]
    other = [words(page) for page in theirs.split("\f")[: len(ours)]]
    mine, poppler = Counter(chain.from_iterable(ours)), Counter(chain.from_iterable(other))
    common = sum((mine & poppler).values())
    pages = list(zip(ours, other, strict=True))
    step = max(1, len(pages) // 100)
    in_order = [
        sum(block.size for block in matcher.get_matching_blocks()) / max(len(a), len(b))
        for a, b in pages[::step]
        if a and b and (matcher := difflib.SequenceMatcher(None, a, b, autojunk=False))
    ]
    return {
        "manual": path.name,
        "pages": len(ours),
        "words": sum(mine.values()),
        "words_in_common": common / max(sum(mine.values()), sum(poppler.values())),
        "order_agreement": statistics.mean(in_order),
    }


class Peak:
    """The most that this process and its children held together, looked at all the time."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = self._process.memory_info().rss
        self._most = self._before
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._is_over.wait(_LOOK_EVERY_SECONDS):
            held = self._process.memory_info().rss
            for child in self._process.children(recursive=True):
                try:
                    # What is shared with others (libraries, the file) counts once.
                    held += child.memory_full_info().uss
                except psutil.Error:
                    continue
            self._most = max(self._most, held)

    def extra_bytes(self) -> int:
        """The highest use of memory beyond what there was at the start."""
        self._is_over.set()
        self._thread.join()
        return self._most - self._before


def by_us(encoder: Any) -> tuple[int, int]:
    """Reads a file with our own reader."""
    tokenized = tokenize(read(LONGEST), encoder)
    return tokenized.tokens, sum(len(section.text) for section in tokenized.document.sections)


def by_pypdf(encoder: Any) -> tuple[int, int]:
    """Reads a file with pypdf."""
    pages = [page.extract_text() for page in pypdf.PdfReader(LONGEST).pages]
    return sum(map(len, encoder.encode(pages))), sum(map(len, pages))


def timed(run: Callable[[Any], tuple[int, int]], encoder: Any) -> dict[str, float]:
    """Seconds that some work takes."""
    peak = Peak()
    start = time.perf_counter()
    tokens, characters = run(encoder)
    seconds = time.perf_counter() - start
    extra = peak.extra_bytes()
    return {"seconds": seconds, "tokens": tokens, "characters": characters, "extra_bytes": extra}


def in_fresh_process(peer: str) -> dict[str, float]:
    """A run that finds nothing warmed up but the files."""
    command = [sys.executable, __file__, "--peer", peer]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result: dict[str, float] = json.loads(found.splitlines()[-1])
    return result


def first_text_seconds() -> float:
    """From typing `mom read` to the first words on stdout."""
    command = [sys.executable, "-m", "app.cli", "read", str(LONGEST), "--no-cache"]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.read(64)
        seconds = time.perf_counter() - start
        process.kill()
    return seconds


def source_tree(root: Path, encoder: Any) -> dict[str, Any]:
    """A source tree (by default Python's own library) as a .zip, all files with their tokens,
    against inflating and tokenizing alone."""
    place = Path(tempfile.gettempdir()) / f"mom-bench-{os.getpid()}.zip"
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for path in sorted(root.rglob("*")):
            if path.is_file() and not path.is_symlink() and "site-packages" not in path.parts:
                packed.write(path, path.relative_to(root))
    try:
        start = time.perf_counter()
        reading = stream(place)
        document = draw(reading)
        read_seconds = time.perf_counter() - start
        tokenized = tokenize(document, encoder)
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        with zipfile.ZipFile(place) as packed:
            sizes = [len(packed.read(info)) for info in packed.infolist()]
        bytes_seconds = time.perf_counter() - start
    finally:
        place.unlink()
    start = time.perf_counter()
    encoder.encode([section.text for section in document.sections])
    return {
        "tree": root.name,
        "files": len(document.sections),
        "left_out": len(document.left_out),
        "tokens": tokenized.tokens,
        "bytes": sum(sizes),
        "seconds": seconds,
        "read_seconds": read_seconds,
        "inflating_alone_seconds": bytes_seconds,
        "tokenizing_alone_seconds": time.perf_counter() - start,
    }


def marked_pages() -> dict[str, Any]:
    """Header dropping and hyphen joining on pages whose right text is known."""
    from tests.documents.bodies import body, book

    place = Path(tempfile.gettempdir()) / f"mom-bench-{os.getpid()}.pdf"
    place.write_bytes(book(120))
    try:
        sections: tuple[Section, ...] = read(place).sections
    finally:
        place.unlink()
    right = ["\n".join(text.text for text in body(number)) for number in range(1, 121)]
    exact = sum(s.text == text for s, text in zip(sections, right, strict=True))
    return {"pages": len(right), "pages_exact": exact, **_hyphens()}


def _hyphens() -> dict[str, Any]:
    """Of the words that the manuals divide at line ends, how many are words once joined: those
    that the manual writes somewhere in one line."""
    joined = right = 0
    for path in MANUALS[:-1]:
        printed = read(path, options=ReadOptions(joins_hyphens=False))
        text = "\n".join(section.text for section in printed.sections)
        known = {word.lower() for word in re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)*", text)}
        after = "\n".join(section.text for section in read(path).sections)
        now = Counter(word.lower() for word in re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)*", after))
        before = Counter(word.lower() for word in re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)*", text))
        for word, number in (now - before).items():
            joined += number
            right += number if word in known else 0
    return {"hyphens_joined": joined, "joined_words_seen_elsewhere": right / max(1, joined)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--tree", type=Path, default=Path(os.__file__).parent)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", choices=["us", "pypdf"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    encoder = load_encoder("smollm2-135m")
    if arguments.peer:
        run = by_us if arguments.peer == "us" else by_pypdf
        print(json.dumps(timed(run, encoder)))
        return
    qualities = [quality(path) for path in MANUALS]
    print(f"{'manual':<18}{'pages':>7}{'words':>9}{'in common':>11}{'order':>9}")
    for one in qualities:
        print(
            f"{one['manual']:<18}{one['pages']:>7,}{one['words']:>9,}"
            f"{one['words_in_common']:>11.2%}{one['order_agreement']:>9.2%}"
        )
    marked = marked_pages()
    print(
        f"\nHeaders: {marked['pages_exact']} of {marked['pages']} marked pages exact. Hyphens: "
        f"{marked['hyphens_joined']} words joined, {marked['joined_words_seen_elsewhere']:.1%} of "
        "them are written in one line elsewhere."
    )
    runs: dict[str, list[dict[str, float]]] = {"us": [], "pypdf": []}
    for _ in range(arguments.rounds):
        for peer, found in runs.items():
            found.append(in_fresh_process(peer))
    medians = {
        peer: {key: statistics.median(one[key] for one in found) for key in found[0]}
        for peer, found in runs.items()
    }
    ratio = medians["pypdf"]["seconds"] / medians["us"]["seconds"]
    first = statistics.median(first_text_seconds() for _ in range(arguments.rounds))
    for peer, one in medians.items():
        print(
            f"{LONGEST.name} by {peer}: {one['seconds']:.1f} s, {one['tokens']:,.0f} tokens, "
            f"{one['extra_bytes'] / 1e6:.0f} MB extra"
        )
    print(f"Ratio {ratio:.1f}x; first page's text after {first:.2f} s")
    tree = source_tree(arguments.tree, encoder)
    print(
        f"{tree['tree']}.zip: {tree['files']:,} files, {tree['tokens']:,} tokens in "
        f"{tree['seconds']:.1f} s; inflating alone {tree['inflating_alone_seconds']:.1f} s, "
        f"tokenizing alone {tree['tokenizing_alone_seconds']:.1f} s"
    )
    line = {
        "program": "documents.py",
        "date": date.today().isoformat(),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        ).stdout.strip(),
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "pypdfium2": pypdfium2.version.PYPDFIUM_INFO.version,
        "pypdf": pypdf.__version__,
        "quality": qualities,
        "marked": marked,
        "runs": runs,
        "ratio_seconds": ratio,
        "first_text_seconds": first,
        "tree": tree,
    }
    print(json.dumps(line))
    if arguments.save:
        with RESULTS.open("a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
