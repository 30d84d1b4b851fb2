"""The adapter manager of a worker: where ours takes the place of vLLM's, and how it reads a bundle."""

from __future__ import annotations

from eul_serve.engine.ledger.point import HookPoint

_WORKER = "vllm.lora.worker_manager:LRUCacheWorkerLoRAManager"
_MIXED = "test_engine_vllm.py::test_a_mixed_batch_gives_what_each_request_gives_alone"
_REGISTRY = "vLLM has a registry of adapter managers"

WORKER_MANAGER = (
    HookPoint(
        target="vllm.v1.worker.lora_model_runner_mixin:LRUCacheWorkerLoRAManager",
        use="replaced",
        why="vLLM has no plugin point for an adapter method of one's own.",
        how="The plugin sets the name to `BundleWorkerManager`; both model runners make their manager by this name.",
        goes=_REGISTRY,
        test="test_engine_refuses.py::test_workers_without_the_plugin_are_found_at_start",
        used_by=("vllm.v1.worker.lora_model_runner_mixin:LoRAModelRunnerMixin.load_lora_model",),
    ),
    HookPoint(
        target="vllm.v1.worker.lora_model_runner_mixin:LoRAModelRunnerMixin",
        use="read",
        why="At start, every worker says which adapter manager it runs and which modules are wrapped.",
        how="The worker extension reads the model runner's `lora_manager`.",
        goes=_REGISTRY,
        test="test_engine_vllm.py::test_it_says_what_it_proved_and_leaves_the_probe_out",
        reads=("lora_manager",),
    ),
    HookPoint(
        target=_WORKER,
        use="subclassed",
        why="All but the reading of a bundle is as it is for plain LoRA.",
        how="`BundleWorkerManager` takes its arguments and hands them on.",
        goes=_REGISTRY,
        test=_MIXED,
        takes=("vllm_config",),
        reads=("lora_config", "_adapter_manager"),
    ),
    HookPoint(
        target=f"{_WORKER}._manager_cls",
        use="replaced",
        why="The model's adapter manager has to be ours too.",
        how="Set to `BundleModelManager`.",
        goes=_REGISTRY,
        test=_MIXED,
        used_by=(f"{_WORKER}.create_lora_manager",),
    ),
    HookPoint(
        target=f"{_WORKER}._load_adapter",
        use="overridden",
        why="A bundle is read by our reader, hashed on every load, and never looked for on a hub.",
        how="Bundles are read by `loading.read_layers`; plain LoRA goes to `super()`, and so does a composite's "
        "fine-tune, from a private directory of checked bytes.",
        goes=_REGISTRY,
        test="test_engine_vllm.py::test_a_worker_itself_checks_what_it_loads",
        takes=("lora_request",),
        used_by=(f"{_WORKER}.add_adapter",),
    ),
    HookPoint(
        target="vllm.lora.model_manager:create_lora_manager",
        use="read",
        why="Our settings come to the worker in vLLM's configuration.",
        how="It makes `BundleModelManager`, with `vllm_config` given by name.",
        goes=_REGISTRY,
        test="test_engine_vllm.py::test_a_worker_itself_checks_what_it_loads",
        takes=("vllm_config", "lora_manager_cls"),
    ),
)
