"""The adapter manager that vLLM's workers run in place of vLLM's own: bundles are ours, plain LoRA is vLLM's."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch

from eul_serve.engine.bundle_model import BundleModel, CompositeModel, SlotWeights
from eul_serve.engine.compat import (
    LoRAModel,
    LoRARequest,
    LRUCacheWorkerLoRAManager,
    VllmConfig,
    map_module,
    missing_prefixes,
)
from eul_serve.engine.fine_tune import NO_FINE_TUNES, laid_out
from eul_serve.engine.layer import UnlearningLayer
from eul_serve.engine.loading import cast_layer, is_bundle, read_layers
from eul_serve.engine.model_files import local_model
from eul_serve.engine.model_manager import BundleModelManager
from eul_serve.engine.settings import WorkerSettings
from eul_serve.engine.staging import Staged, Staging, timed
from eul_serve.errors import BundleMismatchError, CapacityError, InputError
from eul_serve.format import Bundle, fingerprint
from eul_serve.format.composite import check_passed, read_fine_tune
from eul_serve.format.weights import LayerWeights

_ANY_ID = 1
"""What a fine-tune is called until it is taken up; vLLM takes no adapter without an id."""


class BundleWorkerManager(LRUCacheWorkerLoRAManager):  # type: ignore[misc]  # vLLM is not typed
    """Loads adapters in a worker."""

    _manager_cls = BundleModelManager

    def __init__(self, vllm_config: VllmConfig, *args: object, **kwargs: object) -> None:
        """Take vLLM's arguments."""
        super().__init__(vllm_config, *args, **kwargs)
        self._settings = WorkerSettings.from_config(vllm_config.additional_config)
        self._model_config = vllm_config.model_config

    @cached_property
    def base_fingerprint(self) -> str:
        """Fingerprint of the served model's files, or of what it was made from by the policy's word; computed once."""
        own = fingerprint(local_model(self._model_config.model, self._model_config.revision))
        return self._settings.derived_from.get(own, own)

    @cached_property
    def staging(self) -> Staging:
        """Bundles that are read while this worker decodes."""
        return Staging(self._read)

    def _load_adapter(self, lora_request: LoRARequest) -> LoRAModel:
        path = Path(lora_request.lora_path)
        if self._settings.plain_lora and not is_bundle(path):
            return super()._load_adapter(lora_request)
        self._adapter_manager.check_blocks()
        staged = self.staging.take(path)
        layers = {module: SlotWeights(layer) for module, layer in staged.layers.items()}
        bundle = BundleModel(lora_request.lora_int_id, staged.rank, layers, staged.activation)
        return bundle if staged.fine_tune is None else CompositeModel(bundle, staged.fine_tune)

    def _read(self, path: Path) -> Staged:
        """Read, check and cast a bundle; may run in a thread."""
        seconds: dict[str, float] = {}
        with timed(seconds, "verify"):
            bundle, layers = read_layers(path, self._settings.bundles, self.base_fingerprint)
        highest = self.lora_config.max_lora_rank
        if bundle.config.rank > highest:
            raise CapacityError(
                f"bundle {bundle.revision}: rank: expected at most {highest}, found {bundle.config.rank}; "
                "start the engine with a higher maximum rank"
            )
        with timed(seconds, "cast"):
            cast = self._cast(layers)
            fine_tune = self._read_fine_tune(bundle)
        return Staged(bundle.config.rank, bundle.config.activation, cast, seconds, fine_tune)

    def _read_fine_tune(self, bundle: Bundle) -> LoRAModel | None:
        """Return a composite's fine-tune as vLLM's own loader reads it; None for a bundle without one."""
        if check_passed(bundle.manifest) is None:
            return None
        if not self._settings.fine_tunes:
            raise InputError(f"bundle {bundle.revision}: {NO_FINE_TUNES}")
        with laid_out(read_fine_tune(bundle.path, bundle.manifest)) as folder:
            return super()._load_adapter(
                LoRARequest(lora_name=bundle.revision, lora_int_id=_ANY_ID, lora_path=str(folder))
            )

    def _cast(self, layers: dict[str, LayerWeights]) -> dict[str, LayerWeights]:
        """Return layers in the engine's dtype, by the paths of this worker's modules."""
        manager = self._adapter_manager
        pinned = torch.device(manager.device).type == "cuda"  # so that the copy to the device waits for nothing
        missing, cast = missing_prefixes(manager.model), {}
        for module, layer in layers.items():
            path_here = map_module(manager.model, module)
            if path_here.startswith(missing):
                continue  # another rank of the pipeline holds this block
            _check_module(manager.layers, path_here, layer)
            cast[path_here] = cast_layer(layer, self.lora_config.lora_dtype, module, pinned=pinned)
        return cast


def _check_module(layers: dict[str, UnlearningLayer], module: str, weights: LayerWeights) -> None:
    if module not in layers:
        raise BundleMismatchError(
            f"module {module!r}: expected one of the model's {len(layers)} feed-forward modules "
            f"({', '.join(list(layers)[:2])}, ...), found no such module"
        )
    expected, found = layers[module].slots.width, weights.down.shape[1]
    if expected != found:
        raise BundleMismatchError(f"module {module!r}: width: expected {expected}, found {found}")
