"""`python -m benchmarks.report`: the tables and pictures of the README and docs/results.md.

They are made from the newest results and replace whatever stands between a pair of marks. `--check`
changes nothing, and fails if something would change.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.paper.figures import longest_contexts, memory_timeline
from benchmarks.record import ROOT, records

README = ROOT / "README.md"
RESULTS = ROOT / "docs" / "results.md"
# Which tables each document holds.
SECTIONS = {README: ("peers",), RESULTS: ("paper", "promises")}
FIGURES = ROOT / "assets" / "figures"
_MIB, _GIB = 2**20, 2**30
_PEER_ROWS = {
    "long_prefill_tokens_per_second": "reading, tokens/s",
    "long_decode_tokens_per_second": "answering, tokens/s",
    "quote_tokens_per_second": "quoting the document, tokens/s",
    "long_first_token_seconds": "first token of the first question, s",
    "follow_up_first_token_seconds": "first token of a follow-up question, s",
    "long_extra_peak_bytes": "memory while reading, beyond weights and KV",
}
_PICTURES = {
    "memory-timeline.svg": "Device memory while reading and answering, by kind and strategy",
    "longest-context.svg": "The longest context that fits, by model, card and strategy",
}
_BAR_STRATEGIES = ("standard", "chunked 8192", "mom", "layer-streaming")


def peers_table(record: dict[str, Any]) -> list[str]:
    """The table that compares mom-chat with each peer.

    Args:
        record: a line of `results/peers.jsonl`.

    Returns:
        Lines of Markdown.
    """
    figures, ratios = record["figures"], record["ratios"]
    others = [peer for peer in ("transformers", "llama.cpp") if peer in figures]
    machine = record["machine"]
    head = ["", *others, "mom-chat", *(f"mom-chat / {peer}" for peer in others)]
    rows = [head, ["---"] * len(head)]
    for key, words in _PEER_ROWS.items():
        ours = figures["mom-chat"][key]
        shown_key, shown_ours = key, ours
        if key == "quote_tokens_per_second":
            shown_key = "lookup_quote_tokens_per_second"
            shown_ours = figures["mom-chat"][shown_key]
        rows.append(
            [
                words,
                *(_shown(key, figures[peer][key]) for peer in others),
                _shown(key, shown_ours),
                *(f"{ratios[peer][shown_key]:.2f}x" for peer in others),
            ]
        )
    versions = record["versions"]
    return [
        *_wrapped(
            f"Built-in model, {record['tokens']:,} tokens of text that does not repeat itself, "
            f"on {record['threads']} threads of {machine['cpu']} "
            f"({', '.join(machine['cpu_features']) or machine['architecture']}), with torch "
            f"{versions['torch']} and transformers {versions['transformers']}. "
            "Each peer counts in its best dtype; llama.cpp runs the same Q4_1 file with flash "
            "attention. All of them write one token a step, except that mom-chat quotes "
            f"{figures['mom-chat']['lookup_tokens_per_step']:.1f} tokens a step. Measured by "
            f"`python -m benchmarks.run` on {record['date']} at commit {record['commit']}:"
        ),
        "",
        *_table(rows),
    ]


def real_table(record: dict[str, Any]) -> list[str]:
    """The paper's comparison, run on the CPU.

    Args:
        record: a line of `results/paper.jsonl`.

    Returns:
        Lines of Markdown.
    """
    real = record["real"]
    head = ["", "reading, tokens/s", "device peak", "of which activations", "host peak"]
    rows = [head, ["---"] * len(head)]
    for name, row in real["strategies"].items():
        by_kind = row["prefill_device_peak_by_kind"]
        working = sum(by_kind.get(kind, 0) for kind in ("activations", "logits", "hidden"))
        rows.append(
            [
                name,
                f"{row['prefill_tokens_per_second']:,.0f}",
                f"{row['prefill_device_peak_bytes'] / _MIB:,.0f} MiB",
                f"{working / _MIB:,.0f} MiB",
                f"{row['host_peak_bytes'] / _MIB:,.0f} MiB",
            ]
        )
    head[3] = "of which hidden states, activations and logits"
    return [
        *_wrapped(
            f"Run on the CPU with {real['tokens']:,} tokens. The bytes of every tensor are counted "
            "while reading; device and host are kept apart, as they would be with a GPU. Measured "
            f"by `python -m benchmarks.run --suite paper` on {record['date']}:"
        ),
        "",
        *_table(rows),
    ]


def simulated_table(record: dict[str, Any]) -> list[str]:
    """The paper's comparison, simulated for large models.

    Args:
        record: a line of `results/paper.jsonl`.

    Returns:
        Lines of Markdown.
    """
    simulated = record["simulated"]
    models = simulated["models"]
    rows = [["", *models], ["---"] * (len(models) + 1)]
    for name in next(iter(models.values())):
        cells = []
        for rows_of_model in models.values():
            row = rows_of_model[name]
            longest = " / ".join(
                f"{tokens // 1000:,}k" for tokens in row["longest_context_tokens"].values()
            )
            cells.append(f"{row['device_peak_bytes'] / _GIB:.1f} GiB; {longest}")
        rows.append([name, *cells])
    cards = " and ".join(next(iter(models.values()))["standard"]["longest_context_tokens"])
    return [
        *_wrapped(
            "Simulated in bf16: the real code runs on tensors without contents. Each cell gives "
            f"the device peak of reading {simulated['tokens']:,} tokens and answering, then the "
            f"longest contexts that fit on cards of {cards} in a machine with "
            f"{simulated['host_bytes'] / _GIB:.0f} GiB of memory. Layer-streaming also streams the "
            "weights where that lets a card go further:"
        ),
        "",
        *_table(rows),
    ]


def _shown(key: str, value: float) -> str:
    if key.endswith("_bytes"):
        return f"{value / _MIB:,.0f} MiB"
    return f"{value:,.2f}" if value < 10 else f"{value:,.0f}"


def _wrapped(paragraph: str) -> list[str]:
    # A command stays on one line.
    whole = re.sub("`[^`]*`", lambda code: code[0].replace(" ", "\0"), paragraph)
    lines = textwrap.wrap(whole, 100, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in lines]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in rows]


def promises_table() -> list[str]:
    """The table of everything else that was promised and measured.

    Returns:
        Lines of Markdown; none without results.
    """
    rows = [*_forecast_rows(), *_keeping_rows(), *_page_rows(), *_document_rows()]
    return ["| what | measured | by |", "| --- | --- | --- |", *rows] if rows else []


def _row(what: str, measured: str, program: str, record: dict[str, Any]) -> str:
    return f"| {what} | {measured} | `python -m benchmarks.{program}`, {record['date']} |"


def _forecast_rows() -> list[str]:
    if not (found := records("forecast")):
        return []
    rows = found[-1]["rows"]

    def errors(key: str) -> str:
        shares = [row[key]["forecast"] / row[key]["real"] - 1 for row in rows]
        return ", ".join(f"{share:+.0%}" for share in shares)

    lengths = ", ".join(f"{row['tokens']:,}" for row in rows)
    return [
        _row(
            f"forecast of time against the real run, for {lengths} tokens, from the machine's "
            "rates alone",
            f"reading {errors('read_seconds')}; each token {errors('token_seconds')}",
            "forecast",
            found[-1],
        )
    ]


def _keeping_rows() -> list[str]:
    rows = []
    if found := records("reopen"):
        last = found[-1]
        lower, upper = last["keeping_share_quartiles"]
        rows.append(
            _row(
                f"first token after reopening {last['tokens']:,} tokens in another process",
                f"{last['times_faster']:.0f} times as fast as reading; saving them added "
                f"{last['keeping_share']:+.1%} to the reading time (the middle half of "
                f"{len(last['samples']['read'])} rounds: {lower:+.1%} to {upper:+.1%})",
                "reopen",
                last,
            )
        )
    if found := records("faults"):
        last = found[-1]
        tried = sum(kind["tried"] for kind in last["kinds"])
        survived = sum(kind["survived"] for kind in last["kinds"])
        rows.append(
            _row(
                f"injected faults of {len(last['kinds'])} kinds (killed, disk full, damaged files)",
                f"{survived} of {tried} survived, with the right answer and an intact library",
                "faults",
                last,
            )
        )
    return rows


def _page_rows() -> list[str]:
    if not (found := records("page")):
        return []
    measured = found[-1]["measured"]
    answers = [one for name, one in measured.items() if name.startswith("answer after")]
    busy = [measured["reading"], measured["answering"]]
    return [
        _row(
            "what an open page costs, in percent of a core",
            f"idle: {measured['idle']['page_percent']:.1f} % in the browser; during a run, at most "
            f"{max(one['server_added_percent'] for one in busy):.1f} % more in the server, "
            f"{max(one['page_percent'] for one in busy):.1f} % in the browser, and "
            f"{max(one['bytes_per_second'] for one in busy) / 1000:.1f} kB/s",
            "page",
            found[-1],
        ),
        _row(
            "the last 500 tokens of a streamed 5,000-token answer against the first 500",
            "; ".join(
                f"{one['last_ms_per_token']:.2f} against {one['first_ms_per_token']:.2f} ms and "
                f"{one['last_bytes_per_token']:.0f} against {one['first_bytes_per_token']:.0f} "
                "bytes a token"
                for one in answers
            )
            + " (in a new chat; after 40 messages)",
            "page",
            found[-1],
        ),
    ]


def _document_rows() -> list[str]:
    if not (found := records("documents")):
        return []
    last = found[-1]
    seconds, extra = (
        {name: median(run[key] for run in runs) for name, runs in last["runs"].items()}
        for key in ("seconds", "extra_bytes")
    )
    manual = next(one for one in last["quality"] if one["manual"] == "fullrefman.pdf")
    worst = min(one["words_in_common"] for one in last["quality"])
    return [
        _row(
            f"a PDF of {manual['pages']:,} pages, from path to token count",
            f"{seconds['us']:.1f} s and {extra['us'] / 1e6:.0f} MB extra; pypdf page by page with "
            f"the same tokenizer: {seconds['pypdf']:.1f} s and {extra['pypdf'] / 1e6:.0f} MB",
            "documents",
            last,
        ),
        _row(
            f"words shared with poppler's `pdftotext`, over {len(last['quality'])} manuals",
            f"at least {worst:.2%}",
            "documents",
            last,
        ),
    ]


def filled(text: str, names: Sequence[str] = SECTIONS[README]) -> str:
    """Puts what the results say between a document's marks.

    Args:
        text: the document.
        names: the sections it holds, keys of its marks.

    Returns:
        The document with its sections replaced; those without results stay as they are.

    Raises:
        ValueError: a mark is missing.
    """
    sections: dict[str, list[str]] = {}
    if peers := records("peers"):
        sections["peers"] = peers_table(peers[-1])
    if paper := records("paper"):
        sections["paper"] = [
            *real_table(paper[-1]),
            "",
            *simulated_table(paper[-1]),
            "",
            *(f"![{words}](../assets/figures/{name})" for name, words in _PICTURES.items()),
        ]
    if promises := promises_table():
        sections["promises"] = promises
    for name, content in sections.items():
        if name not in names:
            continue
        begin, end = f"<!-- {name}: from results -->", f"<!-- {name}: end -->"
        before, has_begin, rest = text.partition(begin)
        _, has_end, after = rest.partition(end)
        if not (has_begin and has_end):
            raise ValueError(f"the document has no marks {begin} and {end}")
        text = "\n".join([before + begin, "", *content, "", end + after])
    return text


def pictures() -> dict[Path, str]:
    """The pictures as SVG, by path; none without results."""
    paper = records("paper")
    if not paper:
        return {}
    simulated = paper[-1]["simulated"]
    timeline = memory_timeline(simulated["timelines"], "Llama-3-8B", simulated["tokens"])
    bars = longest_contexts(simulated["models"], _BAR_STRATEGIES)
    return {FIGURES / "memory-timeline.svg": timeline, FIGURES / "longest-context.svg": bars}


def stale() -> dict[Path, str]:
    """The files that are out of date, each with what it should hold."""
    documents = {path: filled(path.read_text(), names) for path, names in SECTIONS.items()}
    wanted = {**documents, **pictures()}
    return {
        path: content
        for path, content in wanted.items()
        if not path.exists() or path.read_text() != content
    }


def main() -> int:
    """Writes what is out of date, or with `--check` only names it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for path, content in stale().items():
        print(f"{path.relative_to(ROOT)} {'is stale' if check else 'written'}")
        if check:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return int(check and bool(stale()))


if __name__ == "__main__":
    sys.exit(main())
