"""Everything that ties us to vLLM's inside, in one file: vLLM 0.32 tested, written to hold for 0.26 to 0.33.

Ledger of what we stand in for. Each entry: target, why, how, and when it goes.

`v1.worker.lora_model_runner_mixin.LRUCacheWorkerLoRAManager`
    Why: vLLM has no plugin point for an adapter method of one's own.
    How: `plugin.register` sets the name to `manager.BundleWorkerManager`.
    Goes when vLLM offers a registry of adapter managers, and all below with it.
`LRUCacheWorkerLoRAManager._load_adapter`, `._manager_cls`
    Why: a bundle is read by our reader. How: overridden; plain LoRA goes to `super()`.
`LRUCacheLoRAModelManager._create_lora_modules`
    Why: our layer sits behind a whole feed-forward module, not behind a linear map.
    How: `super()` first, then each feed-forward module is wrapped.
    Goes when vLLM lets an adapter name its modules.
`LRUCacheLoRAModelManager.lora_slots`
    Why: vLLM's LoRA operators for CPUs index the weights with the slot of each row, which is -1 for a row without an
    adapter, so that in a mixed batch such rows get the adapter of the *last* slot.
    How: on a CPU the LoRA layers get one slot more than is used; it stays zero, and -1 means it.
    Goes when `vllm/lora/ops/torch_ops` leaves rows of -1 out.
`LRUCacheLoRAModelManager._add_adapter`
    Why: vLLM packs and pins tensors `lora_a`, `lora_b`, which a bundle has not. How: left out for bundles.
`LRUCacheLoRAModelManager.create_dummy_lora`
    Why: vLLM's own does not find linear maps behind a wrapped module. How: warm-up adapters of our layers alone.
`LRUCacheLoRAModelManager.set_adapter_mapping`
    Why: each slot's rows are needed once per step, and to vLLM's LoRA layers a bundle's rows must look like base rows.
    How: own step kept; `super()` gets a mapping without bundles, and `_last_mapping` is reset, because 0.26 does not
    notice that slots moved. Goes when vLLM hands the mapping to layers.
`LRUCacheLoRAModelManager.pin_adapter`
    Why: vLLM pins in host memory *and* in a slot; more bundles are resident than there are slots.
    How: a bundle is pinned in host memory only. Goes when vLLM separates the two.
`AsyncLLM.shutdown`
    Why: vLLM stops its engine process with a signal. One that comes in the millisecond in which the process goes to
    wait for work is not seen (CPython runs handlers between bytecodes, and does not wake a lock that is waited for by
    then): the process sleeps on until it is killed, its workers with it.
    How: `llm.RunningLlm.close` sends messages, which wake it, until it has ended.
    Goes when vLLM stops the process with a message, or lets it wait with a timeout.
`lora.ops.triton_ops.lora_shrink`, `.lora_expand`, `.LoRAKernelMeta`
    Why: vLLM's own kernels are what ours are measured by, and a way to run layers without ours.
    How: called as vLLM's LoRA layers do, with the arguments that `LoRAKernelMeta.meta_args` returns; imported when
    first needed, since they need Triton. Goes when ours are faster wherever it matters.
`worker_extension_cls`, `VllmConfig.additional_config["eul"]`
    Why: the probe and our settings must reach every worker; the latter are part of the key of compiled graphs.
    How: public settings of vLLM; they stay.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from vllm.config import VllmConfig
from vllm.distributed.parallel_state import get_tp_group
from vllm.lora.layers import BaseLayerWithLoRA, LoRAMapping, LoRAMappingType
from vllm.lora.lora_model import LoRAModel
from vllm.lora.model_manager import LRUCacheLoRAModelManager
from vllm.lora.request import LoRARequest
from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager
from vllm.model_executor.models import ModelRegistry
from vllm.model_executor.models.utils import PPMissingLayer
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.triton_utils import HAS_TRITON

__all__ = [
    "BaseLayerWithLoRA",
    "LRUCacheLoRAModelManager",
    "LRUCacheWorkerLoRAManager",
    "LoRAMapping",
    "LoRAMappingType",
    "LoRAModel",
    "LoRARequest",
    "SamplingParams",
    "VllmConfig",
    "agree",
    "delta_outputs",
    "feed_forward_modules",
    "final_outputs",
    "has_triton",
    "keep_known",
    "load_model_class",
    "lora_kernels",
    "make_prompt",
    "map_module",
    "missing_prefixes",
    "stop_llm",
]

_Value = TypeVar("_Value")
_FEED_FORWARD = re.compile(r"(.*\.)?\d+\.(mlp|feed_forward|ffn)")


def feed_forward_modules(manager: LRUCacheLoRAModelManager) -> dict[str, torch.nn.Module]:
    """Return the modules of a model whose output is a block's feed-forward output, by path.

    Args:
        manager: vLLM's adapter manager; towers of multimodal models are left out.

    Returns:
        Modules by path; empty where the blocks have no such module.
    """
    prefix = manager.mm_mapping.language_model[0] if manager.supports_mm else ""
    return {
        name: module
        for name, module in manager.model.named_modules()
        if _FEED_FORWARD.fullmatch(name) and name.startswith(prefix) and not isinstance(module, PPMissingLayer)
    }


def missing_prefixes(model: torch.nn.Module) -> tuple[str, ...]:
    """Return the paths of blocks that another rank of the pipeline holds."""
    return tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, PPMissingLayer))


def agree(value: _Value) -> _Value:
    """Return the first tensor-parallel rank's value in every rank; called by all of them together."""
    group = get_tp_group()
    agreed: _Value = group.broadcast_object(value, src=0) if group.world_size > 1 else value
    return agreed


def map_module(model: torch.nn.Module, name: str) -> str:
    """Return vLLM's path for a module of the Hugging Face model."""
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    if mapper is None:
        return name
    if hasattr(mapper, "get_rename_mapper"):  # 0.30 and later; before that the mapper holds renames alone
        mapper = mapper.get_rename_mapper()
    return mapper._map_name(name) or name


def has_triton() -> bool:
    """Return whether Triton can compile for the device; vLLM says so for its own kernels."""
    return bool(HAS_TRITON)


def keep_known(function: Callable[..., object], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a function of the installed vLLM takes."""
    known = inspect.signature(function).parameters
    return {key: value for key, value in settings.items() if key in known}


def load_model_class(architecture: str) -> type | None:
    """Return vLLM's class of a model, or None where it has none of its own."""
    if architecture not in ModelRegistry.get_supported_archs():
        return None
    loaded: type = ModelRegistry.models[architecture].load_model_cls()
    return loaded


def lora_kernels() -> tuple[Callable[..., None], Callable[..., None], Any]:
    """Return vLLM's two LoRA kernels and the class of their metadata; needs Triton."""
    from vllm.lora.ops.triton_ops import LoRAKernelMeta, lora_expand, lora_shrink

    return lora_shrink, lora_expand, LoRAKernelMeta


def make_prompt(tokens: Sequence[int], salt: str) -> Any:  # noqa: ANN401  # vLLM is not typed
    """Return a prompt of token ids, with its salt of the prefix cache."""
    try:
        from vllm.inputs import tokens_input
    except ImportError:  # before vLLM split inputs and prompts
        return {"prompt_token_ids": list(tokens), "cache_salt": salt}
    return tokens_input(list(tokens), cache_salt=salt)


def delta_outputs() -> RequestOutputKind:
    """Return the kind of output that holds what each step added."""
    return RequestOutputKind.DELTA


def final_outputs() -> RequestOutputKind:
    """Return the kind of output that comes once, at the end."""
    return RequestOutputKind.FINAL_ONLY


def stop_llm(llm: Any, seconds: float) -> None:  # noqa: ANN401  # vLLM is not typed
    """Stop an AsyncLLM and wait for its processes to end by themselves, up to a number of seconds."""
    if "timeout" in inspect.signature(llm.shutdown).parameters:
        llm.shutdown(timeout=seconds)
    else:
        llm.shutdown()
