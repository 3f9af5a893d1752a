"""Our keys, values and states as a cache of transformers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from transformers import (
    PretrainedConfig,
)
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
    """Whether there is no cache yet, or only one that transformers made and nothing is in."""
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
    """Raised by a cache layer told to stop once it has stored keys and values."""


class SegmentCacheLayer(CacheLayerMixin):  # type: ignore[misc, unused-ignore]
    """A transformers cache layer that keeps its keys and values in segments.

    `update` hands the new keys on with their layer attached; the attention function finds all
    segments there, so nothing is concatenated.
    """

    is_croppable = True

    def __init__(self, kv: KVSink, config: PretrainedConfig | None = None) -> None:
        super().__init__()
        self.kv = kv
        self.stop_once_stored = False
        self.is_initialized = True
        self._config = config

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the store takes its shape from the first tokens."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Stores keys and values `[1, G, N, D]`; returns the keys with their layer attached.

        Raises:
            KVStored: the layer was told to stop once it has stored them.
            UnsupportedModel: the model's attention is not ours: it would see the new keys alone.
        """
        config = self._config
        if config is not None and attention_name(config) != ATTENTION_NAME:
            raise UnsupportedModel(
                "A cache made inside memory_saving was used outside. It can only be used inside "
                "such a block: go on inside one, or begin with a new cache."
            )
        self.kv.append(key_states, value_states)
        if self.stop_once_stored:
            raise KVStored
        key_states.mom_layer = self.kv  # type: ignore[attr-defined]
        return key_states, value_states

    def get_seq_length(self) -> int:
        """Tokens stored."""
        return self.kv.tokens

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys a mask would cover."""
        return self.kv.tokens + query_length, 0

    def get_max_length(self) -> int:
        """No limit of its own."""
        return -1

    def crop(self, tokens_to_remove: int | Tensor) -> None:
        """Takes back the last tokens, as transformers' assisted generation does.

        Args:
            tokens_to_remove: their number, negative; 0 leaves all. Some versions give a tensor.
        """
        number = abs(int(tokens_to_remove))
        if number:
            self._crop_to(self.kv.tokens - number)

    def reset(self) -> None:
        """Forgets all tokens."""
        self._crop_to(0)

    def offload(self) -> None:
        """Nothing to do: keys and values live on their tier."""

    def prefetch(self) -> None:
        """Nothing to do: keys and values are attended to where they are."""

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """There is one sequence only.

        Raises:
            UnsupportedModel: always.
        """
        raise UnsupportedModel(PADDED)

    def _crop_to(self, tokens: int) -> None:
        if not isinstance(self.kv, CroppableKV):
            raise UnsupportedModel("The keys and values of this cache cannot be taken back.")
        self.kv.crop(tokens)

    def get_max_cache_shape(self) -> int:
        """The same, under the name transformers 5.17 knows."""
        return -1


class StateCacheLayer(LinearAttentionLayer):  # type: ignore[misc, unused-ignore]
    """A transformers cache layer for a recurrent or convolution state that a `LayerState` holds."""

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
    """A transformers cache over these layers' KV and states.

    Args:
        layers: one for each decoder layer.
        config: the model's, where somebody else calls it: then use without our attention is
            refused.
    """
    return Cache(
        layers=[
            StateCacheLayer(layer)
            if isinstance(layer, LayerState)
            else SegmentCacheLayer(layer, config)
            for layer in layers
        ]
    )
