"""What workers read of vLLM's settings, and what keeps the blocks of the prefix cache apart."""

from __future__ import annotations

from eul_serve.engine.ledger.point import HookPoint

_SLOTS = "test_engine_vllm.py::test_more_bundles_than_slots_stay_resident_and_right"
_CACHE = "test_engine_vllm.py::test_no_bundle_sees_cache_blocks_of_another"

SETTINGS = (
    HookPoint(
        target="vllm.config:VllmConfig",
        use="read",
        why="Our settings reach every worker in it, and are part of the key of compiled graphs.",
        how="`additional_config['eul']` holds them; at start the others are checked for what would break isolation.",
        goes="never: these are vLLM's public settings",
        test="test_engine_start.py::test_settings_that_break_isolation_are_refused",
        reads=(
            "additional_config",
            "model_config",
            "lora_config",
            "parallel_config",
            "compilation_config",
            "device_config",
            "speculative_config",
            "kv_transfer_config",
        ),
    ),
    HookPoint(
        target="vllm.config:ModelConfig",
        use="read",
        why="A worker checks a bundle against the files of the model that it serves.",
        how="The model's directory, its width, whether it has experts, and whether graphs are compiled are read.",
        goes="never: these are vLLM's public settings",
        test="test_engine_vllm.py::test_a_bundle_of_another_model_is_refused",
        reads=("model", "revision", "enforce_eager", "is_moe", "get_hidden_size", "get_vocab_size"),
    ),
    HookPoint(
        target="vllm.config:LoRAConfig",
        use="read",
        why="Slots have the size that vLLM was told.",
        how="Read when the slots are made, and when a bundle is loaded.",
        goes="never: these are vLLM's public settings",
        test=_SLOTS,
        reads=("max_loras", "max_lora_rank", "lora_dtype"),
    ),
    HookPoint(
        target="vllm.config:ParallelConfig",
        use="read",
        why="The probe has to run in every worker.",
        how="`worker_extension_cls` names our methods; data and sequence parallelism are refused, pipelines on a CPU.",
        goes="never: these are vLLM's public settings",
        test="test_engine_vllm.py::test_it_says_what_it_proved_and_leaves_the_probe_out",
        reads=("worker_extension_cls", "data_parallel_size", "pipeline_parallel_size", "use_sequence_parallel_moe"),
    ),
    HookPoint(
        target="vllm.config:DeviceConfig",
        use="read",
        why="A pipeline on a CPU would fail at its first request, long after the start.",
        how="Read when the settings are checked.",
        goes="vLLM's CPU worker has the buffers of a pipeline",
        test="test_engine_start.py::test_what_a_cpu_cannot_do_is_refused",
        reads=("device_type",),
    ),
    HookPoint(
        target="vllm.lora.request:LoRARequest.lora_name",
        use="read",
        why="Blocks of the prefix cache belong to an adapter's name (in 0.26, to nothing else).",
        how="The name that we give holds the revision and the adapter's id.",
        goes="vLLM keys blocks by the adapter's content",
        test=_CACHE,
        used_by=("vllm.v1.core.kv_cache_utils:_gen_lora_extra_hash_keys",),
    ),
    HookPoint(
        target="vllm.v1.request:Request.cache_salt",
        use="read",
        why="Blocks of the prefix cache must not be shared between tenants.",
        how="Every request has the salt of its tenant, revision and policy.",
        goes="never: the salt is public",
        test="test_engine_compat.py::test_the_salt_is_part_of_the_key_of_a_cached_block",
        used_by=("vllm.v1.core.kv_cache_utils:generate_block_hash_extra_keys",),
    ),
)
