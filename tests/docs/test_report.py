"""What the README, docs/results.md and the pictures say is what the newest results say."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.paper.figures import longest_contexts, memory_timeline
from benchmarks.peers.suite import FIGURES, lines, summary
from benchmarks.record import ROOT, append, records

GIB = 2**30


def test_documents_and_pictures_are_fresh() -> None:
    stale = [str(path.relative_to(ROOT)) for path in report.stale()]
    assert not stale, f"run `python -m benchmarks.report`: {stale}"


def test_pictures_are_small() -> None:
    for path in report.FIGURES.glob("*.svg"):
        assert path.stat().st_size < 100_000


def sample(peer: str, dtype: str | None, speed: float) -> dict[str, Any]:
    """A sample whose every speed, and the inverse of every time, is `speed`."""
    values = {
        name: speed if name.endswith("per_second") else 1 / speed
        for name in FIGURES
        if name != "quote_tokens_per_second"
    }
    quotes = [{"decode_tokens_per_second": speed, "tokens_per_step": 1.0}]
    return {"peer": peer, "dtype": dtype, "quotes": quotes, **values}


def ours(speed: float) -> dict[str, Any]:
    drafts = [{"decode_tokens_per_second": 3 * speed, "tokens_per_step": 4.0}]
    differences = [{"is_within_rounding": True}, {"is_within_rounding": False}]
    return {
        **sample("mom-chat", None, speed),
        "lookup_quotes": drafts,
        "lookup_differences": differences,
    }


def record() -> dict[str, Any]:
    samples = [ours(100), ours(80), ours(60)]
    for dtype, speed in (("bfloat16", 20.0), ("float32", 40.0)):
        samples += [sample("transformers", dtype, speed * share) for share in (1.0, 0.9, 1.1)]
    return {
        "date": "2026-11-25",
        "commit": "abc",
        "tokens": 8000,
        "threads": 2,
        "machine": {"cpu": "A CPU", "cpu_features": ["avx2"], "architecture": "x86_64"},
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        **summary(samples),
    }


def test_a_peer_counts_in_its_best_dtype_and_the_median_round() -> None:
    found = record()
    assert found["figures"]["transformers"]["long_decode_tokens_per_second"] == 40.0
    assert found["figures"]["transformers"]["follow_up_first_token_seconds"] == 1 / 40
    assert found["ratios"]["transformers"]["long_decode_tokens_per_second"] == 2.0
    assert found["ratios"]["transformers"]["lookup_quote_tokens_per_second"] == pytest.approx(6.0)
    assert found["lookup_answers_that_differ"] == 6
    assert found["lookup_differences_within_rounding"] == 3


def test_peer_tables() -> None:
    found = record()
    assert any("2.00x" in line for line in lines(found))
    table = report.peers_table(found)
    assert "| answering, tokens/s | 40 | 80 | 2.00x |" in table
    assert "| quoting the document, tokens/s | 40 | 240 | 6.00x |" in table


def test_marks_are_filled_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "records", lambda name: [record()] if name == "peers" else [])
    text = "before\n<!-- peers: from results -->\nold\n<!-- peers: end -->\nafter"
    once = report.filled(text)
    assert "old" not in once
    assert once.startswith("before\n<!-- peers: from results -->\n\nBuilt-in model, 8,000 tokens")
    assert once.endswith("| <!-- peers: end -->\nafter".removeprefix("| "))
    assert report.filled(once) == once
    with pytest.raises(ValueError, match="no marks"):
        report.filled("nothing here")


def test_each_document_holds_its_own_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "records", lambda name: [record()] if name == "peers" else [])
    monkeypatch.setattr(report, "promises_table", lambda: ["a table"])
    text = "<!-- promises: from results -->\nold\n<!-- promises: end -->"
    assert "a table" in report.filled(text, report.SECTIONS[report.RESULTS])
    with pytest.raises(ValueError, match="peers"):
        report.filled(text, report.SECTIONS[report.README])
    named = [name for names in report.SECTIONS.values() for name in names]
    assert sorted(named) == ["paper", "peers", "promises"]


def test_results_are_only_added(tmp_path: Path) -> None:
    append("peers", {"a": 1}, tmp_path)
    append("peers", {"a": 2}, tmp_path)
    assert records("peers", tmp_path) == [{"a": 1}, {"a": 2}]
    assert records("nothing", tmp_path) == []


def test_timeline_shows_every_kind_to_scale() -> None:
    steps = [
        {"phase": "prefill", "layer": 0, "device": {"weights": 10 * GIB, "KV": 10 * GIB}},
        {"phase": "decode", "layer": 1, "device": {"weights": 10 * GIB}},
    ]
    picture = ElementTree.fromstring(memory_timeline({"standard": steps}, "A <model>", 1000))
    boxes = list(picture.iter("{http://www.w3.org/2000/svg}rect"))
    weights, kv, later = (float(box.attrib["height"]) for box in boxes[:3])
    assert weights == kv == later == 110.0
    words = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "standard: 20.0 GiB at most" in words
    assert any(word and "A <model>" in word for word in words)


def test_bars_are_to_scale() -> None:
    def rows(tokens: int) -> dict[str, Any]:
        return {"longest_context_tokens": {"24 GiB": tokens}}

    models = {"one": {"standard": rows(1000), "mom": rows(4000)}}
    picture = ElementTree.fromstring(longest_contexts(models, ["standard", "mom"]))
    first, second = list(picture.iter("{http://www.w3.org/2000/svg}rect"))[:2]
    assert float(second.attrib["width"]) == 4 * float(first.attrib["width"]) == 300.0
