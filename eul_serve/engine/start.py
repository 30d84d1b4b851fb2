"""Start vLLM with our settings; what must be true of it is checked in `checks` and `proof`."""

from __future__ import annotations

import os
from typing import Any

from eul_serve.engine.checks import check_device, check_isolation
from eul_serve.engine.compat import make_config, start_llm
from eul_serve.engine.environment import environment, share_cores
from eul_serve.engine.settings import EngineSettings, WorkerSettings
from eul_serve.errors import EngineError, InputError


def create_llm(settings: EngineSettings) -> Any:  # noqa: ANN401  # vLLM is not typed
    """Start vLLM with the settings, without yet believing it.

    Args:
        settings: How to start.

    Returns:
        A running AsyncLLM.

    Raises:
        InputError: vLLM refuses a setting.
        EngineError: vLLM does not start.
    """
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    variables = {}
    if settings.enforce_eager:
        # vLLM compiles a few small functions even in eager mode, which needs a C++ compiler and costs seconds at start.
        variables["TORCHDYNAMO_DISABLE"] = "1"
    if (workers := settings.tensor_parallel * settings.pipeline_parallel) > 1:
        variables["VLLM_CPU_OMP_THREADS_BIND"] = share_cores(sorted(os.sched_getaffinity(0)), workers)
    # vLLM's variable for the cache's size would win over the setting.
    with environment(variables, without=["VLLM_CPU_KVCACHE_SPACE"]):
        return _start(settings)


def _start(settings: EngineSettings) -> Any:  # noqa: ANN401  # vLLM is not typed
    try:
        config = make_config(vllm_arguments(settings))
    except ValueError as error:
        raise InputError(f"engine settings: {error}") from error
    check_isolation(config)
    check_device(config)
    try:
        return start_llm(config)
    except (RuntimeError, OSError) as error:
        raise EngineError(f"vLLM does not start: {error}; its own messages above say why") from error


def vllm_arguments(settings: EngineSettings) -> dict[str, Any]:
    """Return what our settings are in vLLM's words."""
    worker = WorkerSettings(
        plain_lora=False,
        derived_from=settings.derived_from,
        fine_tunes=settings.fine_tunes,
        bundles=settings.bundles,
    )
    return {
        "model": str(settings.model),
        "served_model_name": [settings.model.name],
        "dtype": settings.dtype,
        "max_model_len": settings.max_context,
        "max_num_seqs": settings.max_batch,
        "max_num_batched_tokens": settings.max_batch_tokens,
        "kv_cache_memory_bytes": int(settings.kv_cache_gib * 2**30),
        "seed": settings.seed,
        "enforce_eager": settings.enforce_eager,
        "tensor_parallel_size": settings.tensor_parallel,
        "pipeline_parallel_size": settings.pipeline_parallel,
        "enable_lora": True,
        "max_loras": settings.slots,
        "max_cpu_loras": settings.capacity,
        "max_lora_rank": settings.vllm_rank,
        "enable_prefix_caching": True,
        "worker_extension_cls": "eul_serve.engine.worker.WorkerExtension",
        "additional_config": worker.to_config(),
        "trust_remote_code": False,
        "load_format": "safetensors",
    }
