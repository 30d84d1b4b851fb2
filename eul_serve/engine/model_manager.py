"""The adapter manager of one worker's model: wraps its blocks, and keeps which rows of a step are whose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from eul_serve.engine.blocks import describe_blocks
from eul_serve.engine.bundle_model import BundleModel, CompositeModel, SlotWeights, WarmUpModel
from eul_serve.engine.compat import (
    LoRAMapping,
    LoRAMappingType,
    LoRAModel,
    LRUCacheLoRAModelManager,
    feed_forward_modules,
    missing_prefixes,
)
from eul_serve.engine.kernels.choose import fastest_step
from eul_serve.engine.layer import UnlearningLayer
from eul_serve.engine.plugin import PLUGIN_VERSION
from eul_serve.engine.settings import WorkerSettings
from eul_serve.engine.slot_table import SlotTable
from eul_serve.engine.slots import Slots
from eul_serve.errors import EngineError, InputError
from eul_serve.format.weights import LayerWeights


class BundleModelManager(LRUCacheLoRAModelManager):  # type: ignore[misc]  # vLLM is not typed
    """Wraps the model's blocks and keeps the rows of the running step."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Take vLLM's arguments; `vllm_config` holds our settings."""
        config: Any = kwargs["vllm_config"]
        self.settings = WorkerSettings.from_config(config.additional_config)
        if isinstance(config.additional_config, dict):
            # Part of the key of compiled graphs: one compiled without our layers is never taken for one with them.
            config.additional_config.setdefault("eul", {})["plugin"] = PLUGIN_VERSION
        self.width = config.model_config.get_hidden_size()
        self.layers: dict[str, UnlearningLayer] = {}
        self.deny_base = False
        self._spare_slots = 0
        self._last_rows: tuple[Any, tuple[int | None, ...]] | None = None
        super().__init__(*args, **kwargs)

    @property
    def lora_slots(self) -> int:
        """Bundles and adapters that can be in one batch; one more while vLLM makes its LoRA layers on a CPU."""
        return int(self.lora_config.max_loras) + self._spare_slots

    def _create_lora_modules(self) -> None:
        if self.settings.lora_layers:
            self._spare_slots = int(torch.device(self.device).type == "cpu")
            super()._create_lora_modules()
            self._spare_slots = 0
        found = feed_forward_modules(self)
        slots, device = self.lora_slots, torch.device(self.device)
        self.step = fastest_step(
            SlotTable(slots, self.lora_config.max_lora_rank, device),
            self.max_num_batched_tokens,
            self.width,
            self.lora_config.lora_dtype,
        )
        for path, module in found.items():
            weights = Slots(slots, self.lora_config.max_lora_rank, self.width, self.lora_config.lora_dtype, device)
            layer = UnlearningLayer(path, module, weights, self.step)
            parent, _, name = path.rpartition(".")
            setattr(self.model.get_submodule(parent), name, layer)
            self.register_module(path, layer)
            self.layers[path] = layer
        if not self.settings.plain_lora:
            self.check_blocks()  # with plain LoRA, the model may be good for that alone

    def check_blocks(self) -> None:
        """Check that bundles have modules to stand behind.

        Raises:
            InputError: The model's blocks have no module whose output is the feed-forward output.
        """
        if not self.layers and not missing_prefixes(self.model):
            raise InputError(f"model {type(self.model).__name__}: {describe_blocks(self.model)}")

    def create_dummy_lora(self, lora_id: int, rank: int, embedding_modules: object = None) -> LoRAModel:
        """Return a warm-up adapter of the highest rank, all zero."""
        if not self.layers:
            return super().create_dummy_lora(lora_id, rank, embedding_modules)
        rank = self.lora_config.max_lora_rank
        zero = torch.zeros(1, 1, dtype=self.lora_config.lora_dtype)
        layer = LayerWeights(zero.expand(rank, self.width), zero.expand(self.width, rank), None)
        return WarmUpModel(lora_id, rank, {path: SlotWeights(layer) for path in self.layers})

    def _add_adapter(self, lora: LoRAModel) -> None:
        if isinstance(lora, CompositeModel):
            super()._add_adapter(lora.fine_tune)  # fuses its parts as the model has fused its modules
            lora.loras |= lora.fine_tune.loras
        if isinstance(lora, BundleModel):
            self._registered_adapters[lora.id] = lora
        else:
            super()._add_adapter(lora)

    def activate_adapter(self, lora_id: int) -> bool:
        """Bring an adapter into a slot, and note there what bundle it is.

        Args:
            lora_id: Id of an adapter in host memory.

        Returns:
            Whether it was not in a slot before.
        """
        if not super().activate_adapter(lora_id):
            return False
        adapter, slot = self._registered_adapters[lora_id], self.lora_index_to_id.index(lora_id)
        if isinstance(adapter, BundleModel):
            self.step.table.take(slot, adapter.rank, adapter.activation)
        else:
            self.step.table.free(slot)
        self._last_rows = None  # the slot's rank may be another now
        return True

    def pin_adapter(self, lora_id: int) -> bool:
        """Pin an adapter; a bundle in host memory alone, so that more can be resident than there are slots."""
        if isinstance(self.get_adapter(lora_id), BundleModel):
            self._pin_lora_in_cpu_cache(lora_id)
            return True
        return bool(super().pin_adapter(lora_id))

    def hold_slot(self, lora_id: int, *, held: bool) -> None:
        """Have an adapter keep a slot of its own, or let it go again.

        Args:
            lora_id: Id of an adapter in host memory.
            held: Whether it keeps its slot.
        """
        if held:
            self._pin_lora_in_gpu_cache(lora_id)
        else:
            self._active_adapters.pinned_items.discard(lora_id)

    def set_adapter_mapping(self, mapping: LoRAMapping) -> None:
        """Take up the rows of the next step.

        Args:
            mapping: Adapter id of every row and every prompt; 0 is the base.

        Raises:
            EngineError: A row's bundle is not in a slot, or a row has none where the base is denied.
        """
        slots = tuple(self.lora_index_to_id)
        if mapping.type != LoRAMappingType.LANGUAGE:
            super().set_adapter_mapping(mapping)
        elif self._last_rows != (mapping, slots):
            self._set_rows(mapping, slots)
            hidden = {id for id in slots if id is not None and self._is_hidden(id)}
            self._last_mapping = None  # 0.26 to 0.33 look at the slots by themselves; nothing here rests on it
            super().set_adapter_mapping(_without(mapping, hidden))
            self._last_rows = (mapping, slots)

    def _set_rows(self, mapping: LoRAMapping, slots: tuple[int | None, ...]) -> None:
        places = {id: slot for slot, id in enumerate(slots) if id is not None}
        used = set(mapping.index_mapping) | set(mapping.prompt_mapping)
        if lost := used - places.keys() - {0}:
            raise EngineError(f"adapter {min(lost)}: scheduled but not resident; no answer is given without its bundle")
        if self.deny_base and 0 in used:
            raise EngineError("a request without a bundle was scheduled, but the base model is denied")
        self.step.set_rows([places.get(id, -1) for id in mapping.index_mapping])

    def _is_hidden(self, lora_id: int) -> bool:
        adapter = self._registered_adapters.cache.get(lora_id)
        return isinstance(adapter, BundleModel) and adapter.hidden

    def remove_all_adapters(self) -> None:
        """Remove every adapter and forget the last step."""
        super().remove_all_adapters()
        self._last_rows = None
        self.step.set_rows([])


def _without(mapping: LoRAMapping, hidden: set[int]) -> LoRAMapping:
    """Return a mapping in which rows of bundles look like base rows, as they are to vLLM's own LoRA layers."""
    if not hidden:
        return mapping
    return replace(
        mapping,
        index_mapping=tuple(0 if id in hidden else id for id in mapping.index_mapping),
        prompt_mapping=tuple(0 if id in hidden else id for id in mapping.prompt_mapping),
    )
