"""The only file that imports vLLM: 0.32 tested, and all it takes from 0.26 to 0.33 compared with their sources.

What we rely on, why, and what would make it go, is the data in `ledger`; a change here is a change there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
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
from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams
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
    "StructuredOutputsParams",
    "VllmConfig",
    "agree",
    "count_unfinished",
    "delta_outputs",
    "feed_forward_modules",
    "final_outputs",
    "has_triton",
    "load_model_class",
    "make_config",
    "make_prompt",
    "map_module",
    "missing_prefixes",
    "start_llm",
    "stop_llm",
    "substitute",
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
    renames = mapper.get_rename_mapper if hasattr(mapper, "get_rename_mapper") else mapper.get_unstacked_mapper
    return renames()._map_name(name) or name


def has_triton() -> bool:
    """Return whether Triton can compile for the device; vLLM says so for its own kernels."""
    return bool(HAS_TRITON)


def substitute(manager: type) -> None:
    """Put an adapter manager of ours where the model runners look for vLLM's own."""
    from vllm.v1.worker import lora_model_runner_mixin

    lora_model_runner_mixin.LRUCacheWorkerLoRAManager = manager


def load_model_class(architecture: str) -> type | None:
    """Return vLLM's class of a model, or None where it has none of its own."""
    if architecture not in ModelRegistry.get_supported_archs():
        return None
    loaded: type = ModelRegistry.models[architecture].load_model_cls()
    return loaded


def make_config(arguments: dict[str, Any]) -> Any:  # noqa: ANN401  # vLLM is not typed
    """Return vLLM's configuration for settings of its `AsyncEngineArgs`."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    return AsyncEngineArgs(**arguments).create_engine_config()


def start_llm(config: Any) -> Any:  # noqa: ANN401  # vLLM is not typed
    """Return a running AsyncLLM."""
    from vllm.v1.engine.async_llm import AsyncLLM

    return AsyncLLM.from_vllm_config(config)


def make_prompt(tokens: Sequence[int], salt: str) -> Any:  # noqa: ANN401  # vLLM is not typed
    """Return a prompt of token ids, with its salt of the prefix cache."""
    from vllm.inputs import tokens_input

    return tokens_input(list(tokens), cache_salt=salt)


def delta_outputs() -> RequestOutputKind:
    """Return the kind of output that holds what each step added."""
    return RequestOutputKind.DELTA


def final_outputs() -> RequestOutputKind:
    """Return the kind of output that comes once, at the end."""
    return RequestOutputKind.FINAL_ONLY


def count_unfinished(llm: Any) -> int:  # noqa: ANN401  # vLLM is not typed
    """Return how many requests of an AsyncLLM have not ended."""
    return int(llm.output_processor.get_num_unfinished_requests())


def stop_llm(llm: Any, seconds: float) -> None:  # noqa: ANN401  # vLLM is not typed
    """Stop an AsyncLLM and wait for its processes to end by themselves, up to a number of seconds."""
    llm.shutdown(timeout=seconds)
