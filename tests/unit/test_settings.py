"""Settings of the page: what they mean to the engine, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from app.workspace.settings import PRESETS, Settings
from mom_core.config import EngineConfig
from mom_core.errors import InvalidSetting

BASE = EngineConfig(host_memory=2**34)


def test_they_are_put_into_the_engines() -> None:
    settings = Settings(
        offload="KV to host", chunk="1,024", weights="stream", device_memory="24GiB"
    )
    config = settings.engine_config(BASE)
    assert (config.kv, config.hidden, config.chunk_tokens) == ("host", "device", 1024)
    assert (config.weights, config.device_memory) == ("stream", 24 * 2**30)
    # What is left empty stays as the program was started.
    assert config.host_memory == 2**34
    sampling = Settings(temperature=0.5, top_p=0.9, top_k=40, seed="7").sampling()
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (
        0.5,
        0.9,
        40,
        7,
    )


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_allowed(name: str) -> None:
    Settings(**PRESETS[name]).check(BASE)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"chunk": "many"}, "The chunk size is 'many'; it must be auto or a whole number"),
        ({"chunk": "0"}, "it must be auto or a whole number of at least 1"),
        ({"offload": "moon"}, "offload is 'moon'; it must be one of auto, off,"),
        ({"weights": "moon"}, "weights is 'moon'; it must be one of auto, device, stream"),
        ({"device_memory": "lots"}, "The device memory is 'lots': 'lots' is not a size of memory"),
        ({"host_memory": "-1"}, "The host memory is '-1'"),
        ({"max_new_tokens": 0}, "The limit of new tokens is 0; it must be a whole number"),
        ({"temperature": -1.0}, "temperature is -1.0; it must be 0"),
        ({"top_p": 0.0}, "top_p is 0.0; it must be above 0 and at most 1"),
        ({"seed": "x"}, "The seed is 'x'; leave it empty or give a whole number"),
        ({"system": "x" * 20_001}, "The system prompt has 20,001 characters; at most 20,000"),
    ],
)
def test_what_is_refused_gets_a_sentence(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        Settings(**changes).check(BASE)
    assert words in str(caught.value)
