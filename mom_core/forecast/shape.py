"""The numbers of a model that memory and time depend on, taken from the model itself.

A config is made into a model on the meta device, which takes no memory: so weights are counted
and not estimated, and no family needs code here.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM

from mom_core.errors import UnsupportedModel
from mom_core.model.seam.decoder import HFSeam
from mom_core.model.work import LayerShape, layer_shapes

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Widths, layers and weights of a model; the letters are those of `mom_core`.

    Args:
        name: shown to people.
        model_type: the config's.
        window_tokens: the longest sequence the model was made for.
        hidden: E.
        heads: H.
        kv_heads: G.
        head_dim: D.
        mlp: F.
        vocabulary: V.
        mlp_copies: how many `[C, F]` the MLP holds at its widest: 3, or 4 with gate and up fused.
        has_gated_query: whether the query projection also gives a gate of the same width.
        has_head_norm: whether queries and keys are normed by head.
        rotary_share: the share of D that is rotated.
        layers: shape of each layer.
        recurrent: the layers with a state instead of keys and values.
        dtype_bytes: bytes per number, in weights and KV.
        weights_bytes: all weights; tied ones count once.
        layers_bytes: weights of each layer.
    """

    name: str
    model_type: str
    window_tokens: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocabulary: int
    mlp_copies: int
    has_gated_query: bool
    has_head_norm: bool
    rotary_share: float
    layers: tuple[LayerShape, ...]
    recurrent: frozenset[int]
    dtype_bytes: int
    weights_bytes: int
    layers_bytes: tuple[int, ...]

    @property
    def signature(self) -> str:
        """Tells models of different speed apart, under whatever name they are known."""
        return f"{self.model_type} {len(self.layers)}x{self.hidden} {self.weights_bytes}"

    @property
    def kv_layers(self) -> int:
        """Layers that keep keys and values."""
        return len(self.layers) - len(self.recurrent)

    @property
    def layer_kv_bytes_per_token(self) -> int:
        """Of one layer's keys and values."""
        return 2 * self.kv_heads * self.head_dim * self.dtype_bytes

    @property
    def kv_bytes_per_token(self) -> int:
        """Of all layers' keys and values."""
        return self.kv_layers * self.layer_kv_bytes_per_token

    @classmethod
    def of(cls, seam: HFSeam, name: str, dtype_bytes: int | None = None) -> ModelShape:
        """The shape of a loaded model.

        Args:
            seam: the model.
            name: shown to people.
            dtype_bytes: bytes per number, if the weights are to be counted in another dtype.
        """
        widths = seam.layer_widths()
        width = dtype_bytes or seam.dtype.itemsize

        def counted(*modules: torch.nn.Module) -> int:
            # Tied weights are one tensor in several modules; what is kept in fp32 stays so.
            tensors = {id(t): t for m in modules for t in [*m.parameters(), *m.buffers()]}.values()
            return sum(
                t.numel() * (width if t.dtype is seam.dtype else t.itemsize) for t in tensors
            )

        return cls(
            name=name,
            model_type=seam.config.model_type,
            window_tokens=seam.context_window_tokens,
            hidden=seam.hidden_size,
            heads=seam.heads,
            kv_heads=seam.kv_heads,
            head_dim=seam.head_dim,
            mlp=widths.mlp,
            vocabulary=seam.vocabulary_size,
            mlp_copies=widths.mlp_copies,
            has_gated_query=widths.has_gated_query,
            has_head_norm=widths.has_head_norm,
            rotary_share=widths.rotary_share,
            layers=tuple(layer_shapes(seam)),
            recurrent=seam.recurrent_layers,
            dtype_bytes=width,
            weights_bytes=counted(seam.model),
            layers_bytes=tuple(counted(layer) for layer in seam.layers),
        )

    @classmethod
    def of_config(
        cls, config: PretrainedConfig, name: str, dtype: torch.dtype = torch.bfloat16
    ) -> ModelShape:
        """The shape of a model that is not there.

        Args:
            config: its text model's.
            name: shown to people.
            dtype: its weights' dtype.

        Raises:
            UnsupportedModel: transformers knows no such model, or the engine cannot run it.
        """
        try:
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        except (ValueError, KeyError, ImportError) as error:
            raise UnsupportedModel(
                f"The model {name} is not one this program can run: {error}"
            ) from error
        model.tie_weights()
        return cls.of(HFSeam(model), name)
