"""The adapter manager of a model: slots, the adapters in host memory, and whose the rows of a step are."""

from __future__ import annotations

from eul_serve.engine.ledger.point import HookPoint

_MODEL = "vllm.lora.model_manager:LRUCacheLoRAModelManager"
_BASE = "vllm.lora.model_manager:LoRAModelManager"
_MIXED = "test_engine_vllm.py::test_a_mixed_batch_gives_what_each_request_gives_alone"
_STOCK = "test_engine_stock_server.py::test_a_bundle_and_a_plain_adapter_answer_as_peft_does_in_one_batch"
_SLOTS = "test_engine_vllm.py::test_more_bundles_than_slots_stay_resident_and_right"
_PINNED = "test_engine_pins.py::test_a_pinned_bundle_keeps_its_slot_while_others_take_turns"
_REGISTRY = "vLLM has a registry of adapter managers"
_OWN_MODULES = "vLLM lets an adapter name the modules that it changes"

MODEL_MANAGER = (
    HookPoint(
        target=_MODEL,
        use="subclassed",
        why="Slots, and the adapters in host memory with the least recently used one going first, are vLLM's.",
        how="`BundleModelManager` reads its state; `_last_mapping` is reset whenever the rows change.",
        goes=_REGISTRY,
        test=_SLOTS,
        takes=("vllm_config",),
        reads=(
            "model",
            "device",
            "lora_config",
            "lora_index_to_id",
            "max_num_batched_tokens",
            "supports_mm",
            "mm_mapping",
            "_registered_adapters",
            "_active_adapters",
            "_last_mapping",
        ),
    ),
    HookPoint(
        target=f"{_MODEL}.lora_slots",
        use="overridden",
        why="vLLM's LoRA operators for CPUs index the weights with the slot of each row, which is -1 for a row without "
        "an adapter, so that in a mixed batch such rows get the adapter of the last slot (until 0.32).",
        how="On a CPU the LoRA layers get one slot more than is used; it stays zero, and -1 means it.",
        goes="0.33, whose operators leave such rows out, is the oldest version",
        test="test_engine_refuses.py::test_vllm_s_cpu_operators_still_give_rows_without_an_adapter_the_last_slot",
        used_by=(f"{_BASE}.__init__",),
    ),
    HookPoint(
        target=f"{_MODEL}._create_lora_modules",
        use="overridden",
        why="Our layer sits behind a whole feed-forward module, not behind a linear map.",
        how="`super()` first, where plain LoRA may be loaded; then each feed-forward module is wrapped.",
        goes=_OWN_MODULES,
        test=_MIXED,
        used_by=(f"{_BASE}.__init__",),
    ),
    HookPoint(
        target=f"{_MODEL}.register_module",
        use="called",
        why="vLLM tells the modules that it knows when a slot gets another adapter.",
        how="Each wrapped module is registered by its path.",
        goes=_OWN_MODULES,
        test=_MIXED,
    ),
    HookPoint(
        target=f"{_MODEL}.create_dummy_lora",
        use="overridden",
        why="vLLM's own does not find linear maps behind a wrapped module.",
        how="Warm-up adapters are made of our layers alone.",
        goes=_OWN_MODULES,
        test=_STOCK,
        takes=("lora_id", "rank", "embedding_modules"),
        used_by=("vllm.lora.worker_manager:WorkerLoRAManager.add_dummy_lora",),
    ),
    HookPoint(
        target=f"{_MODEL}.activate_adapter",
        use="overridden",
        why="Kernels need the rank and the activation of the bundle in each slot.",
        how="`super()`, then the slot's bundle is noted in the table that all blocks share.",
        goes=_REGISTRY,
        test=_MIXED,
        takes=("lora_id",),
        used_by=("vllm.lora.worker_manager:LRUCacheWorkerLoRAManager.add_adapter",),
    ),
    HookPoint(
        target=f"{_MODEL}._add_adapter",
        use="overridden",
        why="vLLM packs and pins tensors `lora_a` and `lora_b`, which a bundle does not have.",
        how="A bundle is registered as it is; plain LoRA goes to `super()`, and so does a composite's fine-tune, whose "
        "packed tensors then join its layers.",
        goes=_REGISTRY,
        test=_STOCK,
        takes=("lora",),
        used_by=(f"{_MODEL}.add_adapter",),
    ),
    HookPoint(
        target=f"{_MODEL}.get_adapter",
        use="called",
        why="What is pinned, and how, depends on what it is.",
        how="Asked whether an adapter is a bundle.",
        goes=_REGISTRY,
        test=_SLOTS,
    ),
    HookPoint(
        target=f"{_MODEL}.pin_adapter",
        use="overridden",
        why="vLLM pins in host memory and in a slot; more bundles are resident than there are slots.",
        how="A bundle is pinned in host memory only, by `_pin_lora_in_cpu_cache`.",
        goes="vLLM pins in host memory and in a slot apart",
        test=_SLOTS,
        takes=("lora_id",),
        used_by=("vllm.lora.worker_manager:WorkerLoRAManager.pin_adapter",),
    ),
    HookPoint(
        target=f"{_MODEL}._pin_lora_in_cpu_cache",
        use="called",
        why="It is the half of `pin_adapter` that bundles need.",
        how="Called with the adapter's id.",
        goes="vLLM pins in host memory and in a slot apart",
        test=_SLOTS,
    ),
    HookPoint(
        target=f"{_MODEL}._pin_lora_in_gpu_cache",
        use="called",
        why="It is the other half: an operator may have a bundle keep its slot.",
        how="Called with the adapter's id, which also brings it into a slot.",
        goes="vLLM pins in host memory and in a slot apart",
        test=_PINNED,
    ),
    HookPoint(
        target="vllm.lora.model_manager:AdapterLRUCache.pinned_items",
        use="read",
        why="vLLM lets nothing go that it pinned.",
        how="An adapter's id is taken out of that of the slots.",
        goes="vLLM can unpin",
        test=_PINNED,
    ),
    HookPoint(
        target=f"{_MODEL}.set_adapter_mapping",
        use="overridden",
        why="Each slot's rows are needed once per step, and to vLLM's LoRA layers a bundle's rows must look like rows "
        "of the base.",
        how="Our own step is set; `super()` gets a mapping without bundles, but with composites. A row whose bundle "
        "has no slot is refused.",
        goes="vLLM hands the mapping to the layers",
        test=_STOCK,
        takes=("mapping",),
        used_by=("vllm.lora.worker_manager:WorkerLoRAManager.set_active_adapters",),
    ),
    HookPoint(
        target=f"{_MODEL}.remove_all_adapters",
        use="overridden",
        why="After vLLM's warm-up no row may be left from it.",
        how="`super()`, and the step is emptied.",
        goes=_REGISTRY,
        test=_MIXED,
        used_by=("vllm.lora.worker_manager:WorkerLoRAManager.remove_all_adapters",),
    ),
    HookPoint(
        target="vllm.lora.model_manager:AdapterLRUCache.cache",
        use="read",
        why="Looking at an adapter must not make it the one that was used last.",
        how="The registered adapters are read through it.",
        goes=_REGISTRY,
        test=_STOCK,
    ),
    HookPoint(
        target="vllm.lora.lora_model:LoRAModel",
        use="subclassed",
        why="vLLM's caches hold it, and copy it for its warm-up.",
        how="`BundleModel` is made with an id, a rank, and layers by path; a composite's fine-tune gets its id.",
        goes=_REGISTRY,
        test=_MIXED,
        takes=("lora_model_id", "rank", "loras"),
        reads=("id", "rank", "loras"),
    ),
)
