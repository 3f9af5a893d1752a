"""The recommended models, as data: one JSON file each, with the config the model is published with.

What depends on the config (window, layers, bytes of KV) is computed from it and not written down
a second time. Files are read when asked for; torch is not needed.
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
        name: short, for the command line.
        id: on the model hub.
        licence: the weights' licence.
        good_for: what to choose it for, in a few words.
        config: as transformers reads it; of the text model where there is also one that sees.
    """

    name: str
    id: str
    licence: str
    good_for: str
    config: dict[str, Any]

    @property
    def window_tokens(self) -> int:
        """The longest sequence the config gives."""
        return int(self.config["max_position_embeddings"])

    @property
    def layers(self) -> int:
        """L."""
        return int(self.config["num_hidden_layers"])

    @property
    def kv_bytes_per_token(self) -> int:
        """Of a token in all layers that keep keys and values, in half precision."""
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
