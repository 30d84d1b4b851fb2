"""Layers, and the model around them."""

from __future__ import annotations

from eul_serve.engine.ledger.point import HookPoint

_BASE = "vllm.lora.model_manager:LoRAModelManager"
_MIXED = "test_engine_vllm.py::test_a_mixed_batch_gives_what_each_request_gives_alone"
_STOCK = "test_engine_stock_server.py::test_a_bundle_and_a_plain_adapter_answer_as_peft_does_in_one_batch"
_SLOTS = "test_engine_vllm.py::test_more_bundles_than_slots_stay_resident_and_right"
_CHOICE = "test_engine_kernel_choice.py::test_a_worker_says_which_kernels_it_chose"
_OWN_MODULES = "vLLM lets an adapter name the modules that it changes"

LAYERS = (
    HookPoint(
        target="vllm.lora.layers:BaseLayerWithLoRA",
        use="subclassed",
        why="vLLM registers no other modules.",
        how="`UnlearningLayer` stands in for a feed-forward module, with the module itself as `base_layer`.",
        goes=_OWN_MODULES,
        test="test_engine_layer.py::test_adds_the_layer_to_the_rows_of_its_bundle",
    ),
    HookPoint(
        target="vllm.lora.layers:BaseLayerWithLoRA.set_lora",
        use="overridden",
        why="vLLM calls it when an adapter gets a slot, with what it finds as `lora_a` and `lora_b`.",
        how="The layer's weights are copied into the slot.",
        goes=_OWN_MODULES,
        test=_SLOTS,
        takes=("index", "lora_a", "lora_b"),
        used_by=(f"{_BASE}.activate_adapter",),
    ),
    HookPoint(
        target="vllm.lora.layers:BaseLayerWithLoRA.reset_lora",
        use="overridden",
        why="vLLM calls it when an adapter without a layer for the module gets a slot.",
        how="The slot is emptied.",
        goes=_OWN_MODULES,
        test=_STOCK,
        takes=("index",),
        used_by=(f"{_BASE}.activate_adapter",),
    ),
    HookPoint(
        target="vllm.lora.layers:LoRAMapping",
        use="read",
        why="It says whose each row and each prompt of a step is.",
        how="Read, and copied without the rows of bundles.",
        goes="vLLM hands the mapping to the layers",
        test=_STOCK,
        reads=("index_mapping", "prompt_mapping", "type"),
    ),
    HookPoint(
        target="vllm.lora.layers:LoRAMappingType.LANGUAGE",
        use="read",
        why="Towers of multimodal models have mappings of their own, which are none of ours.",
        how="Only mappings of this type set our step.",
        goes="vLLM hands the mapping to the layers",
        test=_MIXED,
    ),
    HookPoint(
        target="vllm.model_executor.models.utils:PPMissingLayer",
        use="read",
        why="With pipeline parallelism, a rank has only some of the blocks.",
        how="Blocks of this class are left out.",
        goes=_OWN_MODULES,
        test="test_engine_compat.py::test_blocks_of_another_rank_are_left_out",
    ),
    HookPoint(
        target="vllm.model_executor.models.utils:WeightsMapper._map_name",
        use="called",
        why="A bundle names the modules of the Hugging Face model, which vLLM may call something else.",
        how="Called with a module's path, on the model's `hf_to_vllm_mapper` without its merged weights.",
        goes="vLLM maps the names of modules in public",
        test="test_engine_compat.py::test_a_module_gets_the_path_that_vllm_has_for_it",
    ),
    HookPoint(
        target="vllm.model_executor.models.utils:WeightsMapper.get_rename_mapper",
        use="called",
        why="The whole mapper also renames linear maps that vLLM merges, and drops weights that it does not load.",
        how="Called before a name is mapped, as vLLM's own loader does.",
        goes="vLLM maps the names of modules in public",
        test="test_engine_compat.py::test_a_module_gets_the_path_that_vllm_has_for_it",
        since="0.29",
        older="get_unstacked_mapper",
    ),
    HookPoint(
        target="vllm.distributed.parallel_state:get_tp_group",
        use="called",
        why="Tensor-parallel ranks hold the same residual stream, and must compute it by the same kernels.",
        how="The first rank's measurement is sent to all.",
        goes="the kernels' results do not differ in a bit",
        test=_CHOICE,
    ),
    HookPoint(
        target="vllm.distributed.parallel_state:GroupCoordinator.broadcast_object",
        use="called",
        why="It sends the measurement.",
        how="Called where the group's `world_size` is more than one.",
        goes="the kernels' results do not differ in a bit",
        test=_CHOICE,
        takes=("obj", "src"),
    ),
    HookPoint(
        target="vllm.triton_utils:HAS_TRITON",
        use="read",
        why="A GPU without Triton runs all slots behind a mask.",
        how="Read when a worker starts.",
        goes="Triton comes with every vLLM for GPUs",
        test=_CHOICE,
    ),
)
