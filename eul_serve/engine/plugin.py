"""vLLM's entry point: puts our adapter manager in the place of vLLM's own, in every process.

`EUL_PLUGIN=0` turns it off. Nothing of vLLM is imported before `register` is called.
"""

from __future__ import annotations

import os

PLUGIN_VERSION = "1"
"""Counts up whenever workers of two versions must not be mixed."""


def register() -> None:
    """Substitute vLLM's adapter manager; calling it again changes nothing."""
    if os.environ.get("EUL_PLUGIN", "1") == "0":
        return
    from vllm.v1.worker import lora_model_runner_mixin

    from eul_serve.engine.manager import BundleWorkerManager
    from eul_serve.engine.orphan import watch

    watch()
    lora_model_runner_mixin.LRUCacheWorkerLoRAManager = BundleWorkerManager
