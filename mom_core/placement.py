"""Where weights, keys, values and hidden states lie: "auto" decided, and what follows from it.

A run is decided once, from one reading of what the machine has free; the decision is the
`RunForecast` that a person sees, that a refusal quotes and that the run takes.

Source: ours.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import get_args

import psutil
import torch

from mom_core.config import DecodeMode, EngineConfig, TierName
from mom_core.context import Context
from mom_core.errors import OutOfMemory
from mom_core.events import Adapted
from mom_core.forecast.capacity import Machine, Room
from mom_core.forecast.choose import longest_context_tokens
from mom_core.forecast.forecast import RunForecast, forecast_run
from mom_core.forecast.recurrent import RecurrentBytes, recurrent_bytes
from mom_core.forecast.seconds import rates_for
from mom_core.forecast.shape import ModelShape
from mom_core.hardware.gpu import device_free_bytes
from mom_core.hardware.host import (
    free_disk_bytes,
    host_free_bytes,
    host_total_bytes,
    own_bytes,
)
from mom_core.hardware.rates import Rates
from mom_core.held_bytes import HeldBytes, weights_bytes
from mom_core.kv.mapped import MappedFiles
from mom_core.kv.oom import give_back_caches, memory_errors_as_sentences
from mom_core.kv.scratch import default_scratch_folder, sweep
from mom_core.kv.store import KVStore, kv_bytes_per_token
from mom_core.kv.tiers import Tier, device_tier, disk_tier, host_tier
from mom_core.model.seam.decoder import HFSeam
from mom_core.strategy import Strategy

# The tiers from fast to large.
_DOWNWARDS: tuple[TierName, ...] = get_args(TierName)
# Of what a cap on host memory leaves, the share that pages of the disk tier may take.
_RESIDENT_SHARE = 0.5
# Room for new tokens reserved ahead; longer answers grow the store by further segments.
_RESERVED_NEW_TOKENS = 1024


class Placement:
    """Decides and arranges where one model's things lie.

    Args:
        seam: the model.
        name: the model's, for sentences.
        config: the settings.

    Attributes:
        config: the settings in force.
    """

    def __init__(self, seam: HFSeam, name: str, config: EngineConfig) -> None:
        self._seam = seam
        self._name = name
        self.config = config
        self._weights_bytes = weights_bytes(seam.model)
        self._files = MappedFiles(self._scratch_root())
        sweep(self._scratch_root())

    def configure(self, config: EngineConfig) -> Callable[[], None]:
        """Changes the settings.

        Returns:
            What puts the settings before back.
        """
        before, before_files = self.config, self._files
        self.config = config
        if config.scratch_folder != before.scratch_folder:
            self._files = MappedFiles(self._scratch_root())

        def undo() -> None:
            self.config, self._files = before, before_files

        return undo

    def close(self) -> None:
        """Puts streamed weights back and deletes the files."""
        self._seam.stream_weights(None)
        self._files.close()

    # The model, as far as memory depends on it.

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self._seam.device

    @functools.cached_property
    def shape(self) -> ModelShape:
        """The model's numbers that memory and time depend on."""
        return ModelShape.of(self._seam, self._name)

    @functools.cached_property
    def rates(self) -> Rates:
        """This machine's rates for the model; measured the first time."""
        return rates_for(self.shape, self._seam.dtype, self._seam.device)

    @property
    def window_tokens(self) -> int:
        """The longest prompt and answer together, in tokens."""
        tokens = self.config.context_tokens
        return self._seam.context_window_tokens if tokens is None else tokens

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes one token takes in keys and values over all layers."""
        seam = self._seam
        layers = len(seam.layers) - len(seam.recurrent_layers)
        return kv_bytes_per_token(seam.kv_heads, seam.head_dim, layers, seam.dtype)

    @functools.cached_property
    def _recurrent(self) -> RecurrentBytes | None:
        return recurrent_bytes(self._seam.model.config, self._seam.dtype)

    @property
    def _recurrent_here(self) -> RecurrentBytes | None:
        # Simulating recurrent layers takes seconds, and decides nothing on a CPU.
        return self._recurrent if self._is_cuda else None

    @property
    def _is_cuda(self) -> bool:
        return self._seam.device.type == "cuda"

    # What is held, and what may be held.

    @property
    def weights_held(self) -> HeldBytes:
        """Bytes of weights by tier; of streamed ones, the two layers that are on the device."""
        weights, held = self._seam.weights, HeldBytes()
        if weights is None:
            held["device", "weights"] = self._weights_bytes
        else:
            outside = self._weights_bytes - weights.home_bytes
            held["device", "weights"] = outside + weights.device_bytes
            held[weights.home.name, "weights"] += weights.home_bytes
        return held

    def room(self, config: EngineConfig, store: KVStore) -> Room:
        """What may still be taken, the bytes of a context's keys and values included.

        Args:
            config: its caps hold.
            store: the context's.
        """
        resident_bytes = psutil.Process().memory_info().rss
        host_bytes = host_free_bytes(host_total_bytes(), resident_bytes)
        for cap in (config.host_memory, None if self._is_cuda else config.device_memory):
            if cap is not None:
                host_bytes = min(host_bytes, cap - own_bytes())
        device_bytes = None
        if self._is_cuda:
            device_bytes = device_free_bytes(self._seam.device, config.device_memory)
        room = Room(device_bytes=device_bytes, host_bytes=host_bytes)
        return room.without(-store.used_bytes, store.tier.name)

    def _machine(self, config: EngineConfig, store: KVStore) -> Machine:
        """What may be held in all: a forecast counts weights and KV, which are already there."""
        room = self.room(config, store)
        held = self.weights_held
        on_device, on_host = held["device", "weights"], held["host", "weights"]
        if self._seam.weights is None and self._seam.layers_are_away:
            on_host = sum(self.shape.layers_bytes)
            on_device -= on_host
        device_bytes = room.device_bytes
        if device_bytes is None:
            on_host += on_device
        else:
            device_bytes = max(0, device_bytes + on_device)
        taken_bytes = 0
        if config.host_memory is not None or (device_bytes is None and config.device_memory):
            taken_bytes = max(0, own_bytes() - on_host)
        return Machine(
            device_bytes=device_bytes,
            host_bytes=max(0, room.host_bytes + on_host),
            disk_bytes=free_disk_bytes(config.scratch_folder or default_scratch_folder())
            + held["disk", "weights"],
            taken_bytes=taken_bytes,
        )

    # "Auto", decided.

    def forecast_run(
        self,
        context: Context,
        *,
        prompt_tokens: int,
        reused_tokens: int = 0,
        new_tokens: int = 0,
        config: EngineConfig | None = None,
        stays: bool = False,
        measures: bool = False,
    ) -> RunForecast:
        """Decides a run, from one reading of what is free.

        Args:
            context: the context that will hold the prompt.
            prompt_tokens: S.
            reused_tokens: tokens of the prompt that need not be read.
            new_tokens: the most tokens of the answer.
            config: settings in place of those in force.
            stays: whether the context's keys and values stay on their tier.
            measures: whether the machine's rates are measured if they are not known. On a GPU
                they always are, for they rank the settings.
        """
        config = config or self.config
        tiers: tuple[TierName, ...] | None = None
        if stays:
            tiers = (context.store.tier.name,)
        elif config.kv == "auto" and reused_tokens and context.tokens:
            # Keys and values that "auto" once moved down stay there.
            now = _DOWNWARDS.index(context.store.tier.name)
            tiers = _DOWNWARDS[now:] if now else None
        return forecast_run(
            self.shape,
            self._recurrent_here,
            self._machine(config, context.store),
            prompt_tokens=prompt_tokens,
            reused_tokens=reused_tokens,
            new_tokens=new_tokens,
            config=config,
            kv_tiers=tiers,
            rates=self.rates if measures or self._is_cuda else None,
            device=self._seam.device,
        )

    def accept(self, forecast: RunForecast) -> Strategy:
        """The settings of a run.

        Raises:
            OutOfMemory: the GPU, or the memory that a person allows, has no room for it, whatever
                the settings. A CPU's memory has more to give than is free, so there the settings
                that come closest are tried.
        """
        config = self.config
        is_bound = self._is_gpu(forecast) or config.host_memory or config.device_memory
        if not forecast.fits and is_bound:
            raise OutOfMemory(forecast.sentence)
        return forecast.strategy

    @staticmethod
    def _is_gpu(forecast: RunForecast) -> bool:
        return forecast.strategy.device_type == "cuda"

    def longest_prompt_tokens(self, context: Context, config: EngineConfig | None = None) -> int:
        """The longest prompt that this machine has room for and the model reads; 0 if none."""
        config = config or self.config
        machine = self._machine(config, context.store)
        longest = longest_context_tokens(self.shape, self._recurrent_here, machine, config=config)
        return min(longest, self.window_tokens)

    def decode_mode(self, strategy: Strategy, store: KVStore) -> DecodeMode:
        """How an answer attends to keys and values that are not on the device."""
        if self.config.decode != "auto":
            return self.config.decode
        if not self._is_cuda or store.tier.name == "device":
            return "host"
        return strategy.with_kv(store.tier.name).decode

    # Tiers, and moving between them.

    def tier(self, name: TierName) -> Tier:
        """A tier of this model."""
        if name == "disk":
            return disk_tier(self._seam.device, self._files)
        device = self._seam.device
        return device_tier(device) if name == "device" else host_tier(device)

    @property
    def tiers(self) -> Mapping[TierName, Tier]:
        """All tiers by name, from fast to large."""
        return {name: self.tier(name) for name in _DOWNWARDS}

    def new_context(self, tier: TierName) -> Context:
        """An empty context whose keys and values will lie on a tier."""
        seam = self._seam
        return Context(KVStore(len(seam.layers), self.tier(tier), seam.recurrent_layers))

    def settle(self, context: Context, wanted: TierName) -> tuple[Context, list[Adapted]]:
        """Brings a context to the tier where its prompt belongs, or to a lower one.

        Returns:
            The context, which is another one if it was empty, and what had to change.

        Raises:
            OutOfMemory: no tier has room for it.
        """
        now = context.store.tier.name
        if not context.tokens and not context.has_unfinished:
            return (context if wanted == now else self.new_context(wanted)), []
        # What "auto" once moved down is not moved up again for a prompt that continues it.
        if self.config.kv == "auto" and _DOWNWARDS.index(wanted) <= _DOWNWARDS.index(now):
            return context, []
        places = _DOWNWARDS[_DOWNWARDS.index(wanted) :]
        for place in places:
            try:
                self.move(context, place)
            except OutOfMemory:
                if place == places[-1]:
                    raise
                give_back_caches()
                continue
            break
        if place == wanted:
            return context, []
        is_device = wanted == "device" and self._seam.device.type != "cpu"
        return context, [
            Adapted(
                what="kv",
                before=wanted,
                after=place,
                full="device" if is_device else "host",
                phase="move",
                at_layer=None,
                at_token=context.tokens,
            )
        ]

    def move(self, context: Context, wanted: TierName) -> None:
        """Moves a context's keys and values to a tier.

        Raises:
            OutOfMemory: the tier has no room for them; they stay where they were.
        """
        store = context.store
        if wanted == store.tier.name:
            return
        with memory_errors_as_sentences():
            if wanted == "disk":
                self._files.require(store.used_bytes)
            store.move_to(self.tier(wanted))

    def place_weights(self, strategy: Strategy) -> None:
        """Holds the layers' weights on the device, or leaves them at home to be streamed.

        Raises:
            OutOfMemory: their place has no room for them.
        """
        seam = self._seam
        if strategy.weights == "device":
            seam.hold_weights()
        # Where they were once brought they stay as long as they are streamed.
        elif seam.weights is None:
            if strategy.weights_home == "disk":
                self._prepare_files(sum(self.shape.layers_bytes))
            with memory_errors_as_sentences():
                seam.stream_weights(self.tier(strategy.weights_home))

    def prepare(self, store: KVStore, strategy: Strategy, held_tokens: int, tokens: int) -> None:
        """Makes ready for a reading: weights in place, room promised, disk space checked.

        Args:
            store: keys and values of the context.
            strategy: the settings.
            held_tokens: tokens that the store holds.
            tokens: tokens that it will hold.

        Raises:
            OutOfMemory: there is no room.
        """
        self.place_weights(strategy)
        reserved = self.reserve(store, tokens)
        files_bytes = 0
        if store.tier.name == "disk":
            files_bytes += self.kv_bytes_per_token * (reserved - held_tokens)
        if strategy.hidden == "disk":
            row_bytes = self._seam.hidden_size * self._seam.dtype.itemsize
            files_bytes += (tokens - held_tokens) * row_bytes
        self._prepare_files(files_bytes)

    def reserve(self, store: KVStore, tokens: int) -> int:
        """Promises room for tokens and a usual answer.

        Returns:
            The tokens that room is promised for.
        """
        reserved = min(tokens + _RESERVED_NEW_TOKENS, self.window_tokens)
        store.reserve(reserved)
        return reserved

    # Files.

    def _scratch_root(self) -> Path:
        return self.config.scratch_folder or default_scratch_folder()

    def _prepare_files(self, wanted_bytes: int) -> None:
        """Refuses what the disk has no room for; lets pages stay in memory as a cap allows."""
        if not wanted_bytes:
            return
        cap = self.config.host_memory
        self._files.resident_limit_bytes = (
            None if cap is None else int(_RESIDENT_SHARE * max(0, cap - own_bytes()))
        )
        self._files.require(wanted_bytes)
