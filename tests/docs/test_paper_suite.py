"""The strategies that are compared give the same answer, and their figures are what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.device import Device
from benchmarks.gpu.models import llama_config, random_ids, random_model
from benchmarks.paper import suite
from benchmarks.paper.run_strategy import STRATEGIES, StrategyRun, run_strategy


def test_all_strategies_give_the_same_answer() -> None:
    config = llama_config(is_tiny=True, layers=3)
    model = random_model(config, torch.device("cpu"), torch.float32)
    # Weights so small that every token is as likely would prove little.
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                weight.mul_(8)
    ids = random_ids(config, 50)
    runs: dict[str, StrategyRun] = {
        name: run_strategy(
            model, replace(strategy, chunk_tokens=16), ids, new_tokens=6, device=Device()
        )
        for name, strategy in STRATEGIES.items()
    }
    answers = {tuple(run.token_ids) for run in runs.values()}
    assert len(answers) == 1
    assert len(answers.pop()) == 6
    for run in runs.values():
        assert run.decode is not None
        assert run.prefill_tokens_per_second == pytest.approx(50 / run.prefill.seconds)
        assert run.decode_tokens_per_second == pytest.approx(5 / run.decode.seconds)


def test_simulated_rows_and_timelines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "SIMULATED_TOKENS", 1024)
    monkeypatch.setattr(suite, "TIMELINE_MODEL", "smollm2-135m")
    rows = suite._simulated("smollm2-135m")
    assert set(rows) == set(STRATEGIES)
    for row in rows.values():
        assert row["device_peak_bytes"] == pytest.approx(
            row["forecast_device_peak_bytes"], rel=0.02
        )
        assert row["longest_context_tokens"]["24 GiB"] <= row["longest_context_tokens"]["80 GiB"]
    assert rows["layer-streaming"]["device_peak_bytes"] < rows["mom"]["device_peak_bytes"]
    assert rows["mom"]["device_peak_bytes"] < rows["standard"]["device_peak_bytes"]
    timelines = suite._timelines()
    assert set(timelines) == set(suite.TIMELINE_STRATEGIES)
    for steps in timelines.values():
        layers = [step["layer"] for step in steps if step["phase"] == "prefill"]
        assert layers == list(range(30))
        assert all(step["device"]["weights"] > 0 for step in steps)
