"""`mom plan`: the table, the JSON, and a sentence for a mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from app.cli.main import cli
from mom_core.errors import MomError
from mom_core.model.catalogue import catalogue


def mom_plan(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["plan", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def report(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(mom_plan(*arguments, "--json"))
    return found


def test_json_for_llama_at_24_gib() -> None:
    found = report(
        *("--model", "llama-3-8b", "--tokens", "455000"),
        *("--device-memory", "24GiB", "--host-memory", "128GiB"),
    )
    assert set(found) == {
        "model",
        "tokens",
        "device_memory_bytes",
        "host_memory_bytes",
        "strategies",
        "chosen",
    }
    assert (found["model"], found["tokens"]) == ("llama-3-8b", 455_000)
    assert found["device_memory_bytes"] == 24 * 2**30
    assert found["host_memory_bytes"] == 128 * 2**30
    rows = {row["name"]: row for row in found["strategies"]}
    assert list(rows) == [
        *("standard", "chunked", "offload", "mini-sequence", "mom", "layer-streaming")
    ]
    for row in rows.values():
        assert set(row) == {
            "name",
            "device_peak_bytes",
            "host_peak_bytes",
            "disk_bytes",
            "minutes",
            "longest_context_tokens",
            "prefill_device_peak_bytes",
            "fits",
        }
        assert row["prefill_device_peak_bytes"] <= row["device_peak_bytes"]
    assert rows["layer-streaming"]["fits"]
    assert rows["layer-streaming"]["device_peak_bytes"] <= 19 * 2**30
    assert not rows["standard"]["fits"]
    assert found["chosen"] == "layer-streaming"


def test_a_table_for_people(samples: Path) -> None:
    text = mom_plan(
        str(samples / "beekeeping-guide.md"),
        *("--model", "llama-3-8b", "--device-memory", "24", "--host-memory", "64GB"),
    )
    lines = text.splitlines()
    assert "about" in lines[0]
    assert "four bytes" in lines[2]
    assert lines[3].split() == [
        *("strategy", "device", "host", "disk", "minutes", "longest", "context", "fits")
    ]
    assert "device 24.0 GiB in all, host 59.6 GiB in all, disk " in lines[1]
    assert lines[-1] == "No time estimate: there is no GPU here to measure."
    assert lines[-2].startswith("Auto: keys and values of all layers fit on the device;")


def test_what_does_not_fit_is_told_with_a_way_out() -> None:
    text = mom_plan(
        *("--model", "mistral-nemo", "--tokens", "128000", "--scratch-folder", "/proc"),
        *("--device-memory", "16GiB", "--host-memory", "8GiB"),
    )
    assert "128,000 tokens of mistral-nemo do not fit" in text


def test_a_config_file_will_do(tmp_path: Path) -> None:
    path = tmp_path / "tiny" / "config.json"
    path.parent.mkdir()
    settings = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128}
    settings |= {"num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100}
    path.write_text(json.dumps(settings))
    found = report("--model", str(path), "--tokens", "1000", "--device-memory", "1GiB")
    assert found["model"] == "tiny"
    assert all(row["fits"] for row in found["strategies"])


def test_without_sizes_it_is_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mom_core.hardware.host.host_free_bytes", lambda *_: 7 * 2**30)
    text = mom_plan("--model", "smollm2-135m", "--tokens", "1000")
    assert "no GPU: the device is the host, host 7.0 GiB free, disk " in text.splitlines()[1]
    assert "No time estimate" not in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"model_type": "llama", "num', r"config\.json is not valid JSON: .*line 1"),
        (
            '{"model_type": "llama", "num_attention_heads": 0}',
            "has a 0 where there must be none, for example in num_attention_heads",
        ),
        ("[]", r"config\.json does not contain a model's settings"),
    ],
)
def test_a_config_that_is_broken_gets_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(MomError, match=words):
        mom_plan("--model", str(path), "--tokens", "1000")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Nothing to plan for"),
        (["pyproject.toml", "--tokens", "5"], "not both"),
        (["--tokens", "5", "--device-memory", "much"], "is not a size of memory"),
        (
            ["--tokens", "5", "--model", "no-such-model"],
            "There is no config for 'no-such-model' here",
        ),
        (["nothing.pdf"], "nothing.pdf was not found"),
    ],
)
def test_mistakes_get_one_sentence(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(cli, ["plan", *arguments])
    assert isinstance(result.exception, MomError)
    assert words in str(result.exception)


def test_every_recommended_model_says_what_its_config_says() -> None:
    from transformers import AutoConfig

    from mom_core.forecast.shape import ModelShape

    for name, entry in catalogue().items():
        shape = ModelShape.of_config(AutoConfig.for_model(**entry.config), name)
        assert shape.kv_bytes_per_token == entry.kv_bytes_per_token, name
        assert shape.window_tokens == entry.window_tokens, name
        assert len(shape.layers) == entry.layers, name
        assert entry.licence
        assert entry.good_for
        assert "/" in entry.id
