"""Our keys, values and states in the form of a transformers cache."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from transformers import PretrainedConfig
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicCache,
    LinearAttentionLayer,
)

from mom_core.errors import UnsupportedModel
from mom_core.kv.state import LayerState
from mom_core.kv.transfer import CroppableKV, KVSink
from mom_core.model.seam.attention import ATTENTION_NAME, PADDED
from mom_core.model.seam.patches import attention_name


def is_empty_cache(cache: object) -> bool:
    """Whether a cache is None, or one that transformers created and that is still empty."""
    if cache is None:
        return True
    if not isinstance(cache, DynamicCache):
        return False
    return all(not getattr(layer, "is_initialized", True) for layer in cache.layers) and not any(
        any(layer.has_previous_state.values())
        for layer in cache.layers
        if isinstance(layer, LinearAttentionLayer)
    )


class KVStored(Exception):
    """Raised by a cache layer that should stop the model once it has stored keys and values."""


class SegmentCacheLayer(CacheLayerMixin):  # type: ignore[misc, unused-ignore]
    """A transformers cache layer that stores its keys and values in segments.

    `update` returns the new keys with this layer attached. The attention function finds all
    segments there, so nothing is concatenated.

    Args:
        kv: where the layer's keys and values are stored.
        config: configuration of a model that somebody else calls; the layer then refuses to be
            used without our attention. None skips the check.
    """

    is_croppable = True

    def __init__(self, kv: KVSink, config: PretrainedConfig | None = None) -> None:
        super().__init__()
        self.kv = kv
        self.stop_once_stored = False
        self.is_initialized = True
        self._config = config

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Does nothing: the store takes its shape from the first tokens."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Stores keys and values, and returns the keys with this layer attached.

        Args:
            key_states: keys of new tokens, `[1, G, N, D]`.
            value_states: their values, `[1, G, N, D]`.
            *args: further positional arguments from transformers; ignored.
            **kwargs: further keyword arguments from transformers; ignored.

        Raises:
            KVStored: `stop_once_stored` is set.
            UnsupportedModel: the model's attention is not ours, and would see only the new keys.
        """
        config = self._config
        if config is not None and attention_name(config) != ATTENTION_NAME:
            raise UnsupportedModel(
                "A cache made inside memory_saving was used outside. It only works inside such a "
                "block: continue inside one, or start with a new cache."
            )
        self.kv.append(key_states, value_states)
        if self.stop_once_stored:
            raise KVStored
        key_states.mom_layer = self.kv  # type: ignore[attr-defined]
        return key_states, value_states

    def get_seq_length(self) -> int:
        """The number of tokens stored."""
        return self.kv.tokens

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The length and offset of the keys that a mask would cover.

        Args:
            query_length: number of new tokens.
        """
        return self.kv.tokens + query_length, 0

    def get_max_length(self) -> int:
        """-1: the layer has no limit of its own."""
        return -1

    def crop(self, tokens_to_remove: int | Tensor) -> None:
        """Drops the last tokens, as transformers' assisted generation requires.

        Args:
            tokens_to_remove: number of tokens to drop, negated; 0 drops none. Some versions of
                transformers pass a tensor.
        """
        number = abs(int(tokens_to_remove))
        if number:
            self._crop_to(self.kv.tokens - number)

    def reset(self) -> None:
        """Drops all tokens."""
        self._crop_to(0)

    def offload(self) -> None:
        """Does nothing: keys and values stay on their tier."""

    def prefetch(self) -> None:
        """Does nothing: attention reads keys and values where they are."""

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Refuses: there is only one sequence.

        Raises:
            UnsupportedModel: always.
        """
        raise UnsupportedModel(PADDED)

    def _crop_to(self, tokens: int) -> None:
        if not isinstance(self.kv, CroppableKV):
            raise UnsupportedModel("Tokens cannot be dropped from this cache.")
        self.kv.crop(tokens)

    def get_max_cache_shape(self) -> int:
        """`get_max_length`, by the name that transformers 5.17 uses."""
        return -1


class StateCacheLayer(LinearAttentionLayer):  # type: ignore[misc, unused-ignore]
    """A transformers cache layer whose recurrent or convolution state is held by a `LayerState`.

    Args:
        state: holds the state.
        number_of_states: number of states in the layer.
    """

    PARTS = (
        "conv_states",
        "recurrent_states",
        "is_conv_states_initialized",
        "is_recurrent_states_initialized",
        "has_previous_state",
        "conv_kernel_size",
    )

    def __init__(self, state: LayerState, number_of_states: int = 1) -> None:
        super().__init__(number_of_states=number_of_states)
        if not state.parts:
            state.adopt({name: getattr(self, name) for name in self.PARTS})
        for name, part in state.parts.items():
            setattr(self, name, part)


def segment_cache(
    layers: Sequence[KVSink | LayerState], config: PretrainedConfig | None = None
) -> Cache:
    """A transformers cache of these layers' KV and states.

    Args:
        layers: the KV or state of each decoder layer.
        config: configuration of a model that somebody else calls; the cache then refuses to be
            used without our attention. None skips the check.
    """
    return Cache(
        layers=[
            StateCacheLayer(layer)
            if isinstance(layer, LayerState)
            else SegmentCacheLayer(layer, config)
            for layer in layers
        ]
    )
