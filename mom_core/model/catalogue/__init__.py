"""The recommended models: one JSON file each, which includes the model's published config.

Whatever follows from the config (window, layers, bytes of KV) is computed from it, not stored.
Files are read on demand, and torch is not needed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A recommended model.

    Args:
        name: short name for the command line.
        id: id on the model hub.
        licence: licence of the weights.
        good_for: what the model is good for, in a few words.
        config: config as transformers reads it; only the text part of a model that also sees.
    """

    name: str
    id: str
    licence: str
    good_for: str
    config: dict[str, Any]

    @property
    def window_tokens(self) -> int:
        """The longest sequence in tokens, according to the config."""
        return int(self.config["max_position_embeddings"])

    @property
    def layers(self) -> int:
        """The number of layers, L."""
        return int(self.config["num_hidden_layers"])

    @property
    def kv_bytes_per_token(self) -> int:
        """The bytes of one token's keys and values in all layers, in half precision."""
        config = self.config
        kinds = config.get("layer_types") or ["full_attention"] * self.layers
        head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        kv_layers: int = sum(
            kind.endswith("_attention") and kind != "linear_attention" for kind in kinds
        )
        return kv_layers * 2 * int(config["num_key_value_heads"]) * int(head_dim) * 2


@cache
def catalogue() -> dict[str, CatalogueEntry]:
    """All recommended models by short name, in alphabetical order."""
    folder = files(__name__)
    found = sorted(file.name for file in folder.iterdir() if file.name.endswith(".json"))
    return {
        name.removesuffix(".json"): CatalogueEntry(
            name.removesuffix(".json"), **json.loads((folder / name).read_text())
        )
        for name in found
    }
