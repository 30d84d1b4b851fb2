"""What must be true of a model, of vLLM's settings and of its workers before bundles are served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eul_serve.engine.compat import load_model_class
from eul_serve.engine.plugin import PLUGIN_VERSION
from eul_serve.errors import EngineError, InputError
from eul_serve.format.fingerprint import read_model_config

MANAGER = "eul_serve.engine.manager.BundleWorkerManager"


def check_model(model: Path) -> None:
    """Check that vLLM can serve a model with adapters.

    Args:
        model: Directory of the model.

    Raises:
        InputError: The directory is no model, or vLLM does not have it or its adapters.
    """
    architectures = read_model_config(model).get("architectures") or ["unknown"]
    found = load_model_class(str(architectures[0]))
    if found is None:
        raise InputError(f"model {str(model)!r}: vLLM does not have {architectures[0]}; it cannot be served")
    if not getattr(found, "supports_lora", False):
        raise InputError(
            f"model {str(model)!r}: vLLM has no adapter support for {architectures[0]}, on which bundles ride; "
            "serve a Llama, Mistral, Qwen or Gemma model instead"
        )


def check_isolation(config: Any) -> None:  # noqa: ANN401  # vLLM is not typed
    """Refuse settings under which a request could see another bundle's work, or go without its own.

    Args:
        config: vLLM's configuration.

    Raises:
        EngineError: Such a setting is on, whoever turned it on.
    """
    reasons = {
        "speculative decoding": config.speculative_config is not None,
        "an external KV connector": config.kv_transfer_config is not None,
        "data parallelism": config.parallel_config.data_parallel_size > 1,
    }
    for name, found in reasons.items():
        if found:
            raise EngineError(f"{name} is on, and keeps no bundles apart; turn it off")
    if config.lora_config is None:
        raise EngineError("adapters are off in vLLM, so no bundle can be applied")
    # A pass of the compiler until vLLM 0.31; of mixtures of experts, where data parallelism is on too.
    passes = getattr(config.compilation_config, "pass_config", None)
    if getattr(passes, "enable_sp", False) or config.parallel_config.use_sequence_parallel_moe:
        raise EngineError(
            "sequence parallelism is on, and gives each device a part of the rows, where bundles stand behind all "
            "of them; turn it off"
        )


def check_device(config: Any) -> None:  # noqa: ANN401  # vLLM is not typed
    """Refuse what vLLM cannot do with adapters on a CPU, where it would fail at the first request.

    Args:
        config: vLLM's configuration.

    Raises:
        InputError: The model or a setting needs a GPU.
    """
    if config.device_config.device_type != "cpu":
        return
    if config.parallel_config.pipeline_parallel_size > 1:
        raise InputError("pipeline parallelism: vLLM has no buffers for it on a CPU; use tensor parallelism there")
    if config.model_config.is_moe:
        raise InputError(
            f"model {config.model_config.model!r}: a mixture of experts; with adapters on, vLLM computes experts in "
            "Triton, which does not run on a CPU; serve it on a GPU"
        )


async def check_workers(llm: Any) -> dict[str, int]:  # noqa: ANN401  # vLLM is not typed
    """Check that every worker runs this plugin and computes as it should.

    Args:
        llm: The started vLLM.

    Returns:
        Width of every wrapped module, by path, over all workers.

    Raises:
        EngineError: A worker does not run the plugin, or computes something else.
    """
    modules: dict[str, int] = {}
    for rank, report in enumerate(await llm.collective_rpc("eul_report")):
        check_report(rank, report)
        modules.update(report["modules"])
    for rank, wrong in enumerate(await llm.collective_rpc("eul_check_layers")):
        if wrong:
            module, difference = next(iter(wrong.items()))
            raise EngineError(f"worker {rank}: module {module!r}: differs from the reference by {difference:.3g}")
    return dict(sorted(modules.items()))


def check_report(rank: int, report: dict[str, Any]) -> None:
    """Check what one worker says of itself.

    Args:
        rank: Number of the worker.
        report: Its answer to `eul_report`.

    Raises:
        EngineError: It does not run this plugin, or wrapped nothing.
    """
    if report["manager"] != MANAGER:
        raise EngineError(
            f"worker {rank}: adapter manager: expected {MANAGER}, found {report['manager']}; the plugin is not live "
            "(is EUL_PLUGIN=0 set, or does VLLM_PLUGINS leave out 'eul'?)"
        )
    if report["plugin"] != PLUGIN_VERSION:
        raise EngineError(f"worker {rank}: plugin version: expected {PLUGIN_VERSION}, found {report['plugin']}")
    if not report["modules"]:
        raise EngineError(f"worker {rank}: expected wrapped modules, found none")
