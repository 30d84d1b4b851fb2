"""The engines that are compared, all alive at the same time, each started as its users start it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eul_serve.engine.compat import LoRARequest, make_config, start_llm, stop_llm
from eul_serve.engine.settings import EngineSettings
from eul_serve.engine.start import vllm_arguments

OURS, LORA, OFF = "bundles", "vLLM's LoRA", "adapters off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all engines of a run have in common."""

    model: Path
    """Directory of the base model."""
    dtype: str
    """dtype of weights and activations."""
    slots: int
    """Adapters in one batch."""
    requests: int
    """Requests in flight."""
    threads: int
    """Threads of each engine's worker; 0 leaves it to vLLM."""


def arguments(setup: Setup, kind: str, rank: int) -> dict[str, Any]:
    """Return vLLM's settings for one engine."""
    settings = EngineSettings(
        model=setup.model.absolute(), dtype=setup.dtype, slots=setup.slots, capacity=max(2, setup.slots),
        max_rank=rank, max_context=512, max_batch=setup.requests, kv_cache_gib=1.0,
    )  # fmt: skip
    found = vllm_arguments(settings)
    if kind != OURS:  # neither our worker nor our settings
        for name in ("worker_extension_cls", "additional_config"):
            del found[name]
    if kind == LORA:
        found["lora_target_modules"] = ["down_proj"]
    if kind == OFF:
        for name in ("enable_lora", "max_loras", "max_cpu_loras", "max_lora_rank"):
            del found[name]
    # Prompts of one measurement are the same for all engines: a cache would answer for the second.
    return {**found, "enable_prefix_caching": False}


@asynccontextmanager
async def running(setup: Setup, kind: str, rank: int) -> AsyncIterator[Any]:
    """Run one engine until the context ends."""
    before = dict(os.environ)
    os.environ["EUL_PLUGIN"] = "1" if kind == OURS else "0"
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    if setup.threads:
        os.environ["OMP_NUM_THREADS"] = str(setup.threads)
    try:
        llm = start_llm(make_config(arguments(setup, kind, rank)))
    finally:
        os.environ.clear()
        os.environ.update(before)
    try:
        yield llm
    finally:
        stop_llm(llm, 30.0)


def adapters(folders: list[Path], count: int) -> list[Any]:
    """Return adapters under ids of their own; folders are used again, which costs a slot the same."""
    return [
        LoRARequest(f"a{number}", number, str(folders[number % len(folders)].absolute()))
        for number in range(1, count + 1)
    ]
