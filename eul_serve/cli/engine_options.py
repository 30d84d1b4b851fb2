"""The options of `eul serve` that shape the engine, and the settings that they mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from eul_serve.errors import InputError
from eul_serve.format.fingerprint import read_model_config

if TYPE_CHECKING:
    from eul_serve.engine.settings import EngineSettings
    from eul_serve.policy import Policy

DEFAULT_CONTEXT, DEFAULT_SLOTS, DEFAULT_CAPACITY = 2048, 4, 16
_DTYPES = ("auto", "float32", "bfloat16", "float16")
_OPTIONS = (
    click.option("--slots", type=int, help=f"Bundles in one batch.  [default: {DEFAULT_SLOTS}]"),
    click.option("--slot-memory-gib", type=float, help="Memory for slots, per device; sets --slots by --max-rank."),
    click.option(
        "--capacity", type=int, help=f"Bundles in memory; a swap needs a spare.  [default: {DEFAULT_CAPACITY}]"
    ),
    click.option("--host-memory-gib", type=float, help="Memory for bundles, per worker; sets --capacity."),
    click.option("--max-rank", type=int, default=64, show_default=True, help="Highest rank of a bundle."),
    click.option("--max-context", type=int, help="Prompt and answer together, in tokens; the model's, up to 2048."),
    click.option("--max-batch", type=int, default=64, show_default=True, help="Requests in one batch."),
    click.option(
        "--max-batch-tokens", type=int, help="Tokens of a step; long prompts are read in parts; vLLM's choice."
    ),
    click.option("--kv-cache-gib", type=float, default=1.0, show_default=True, help="Memory of the key-value cache."),
    click.option("--tensor-parallel", type=int, default=1, show_default=True, help="Devices that share every block."),
    click.option("--pipeline-parallel", type=int, default=1, show_default=True, help="Groups of devices in a row."),
    click.option("--fine-tunes", is_flag=True, help="Serve composites too: bundles with a tenant's LoRA beside them."),
    click.option("--dtype", type=click.Choice(_DTYPES), default="auto", show_default=True, help="Of the activations."),
    click.option("--compile/--eager", "compiled", default=False, show_default=True, help="Compile graphs (for GPUs)."),
)


def engine_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that shape the engine."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def engine_settings(options: dict[str, Any], policy: Policy) -> EngineSettings:
    """Return the engine's settings.

    Args:
        options: The command's options by name.
        policy: The policy at start: whether any tenant may use the base model, and what a quantised copy was made from.

    Returns:
        The settings.

    Raises:
        InputError: The model is no model directory, or an option is not acceptable.
    """
    from eul_serve.engine.settings import EngineSettings

    model = read_model_config(options["model"])
    dtype = _dtype(model) if options["dtype"] == "auto" else options["dtype"]
    slots, capacity = _sizes(options, dtype)
    return EngineSettings(
        model=options["model"].absolute(),
        dtype=dtype,
        max_context=_context(model) if options["max_context"] is None else options["max_context"],
        slots=slots,
        capacity=capacity,
        max_rank=options["max_rank"],
        max_batch=options["max_batch"],
        max_batch_tokens=options["max_batch_tokens"],
        kv_cache_gib=options["kv_cache_gib"],
        tensor_parallel=options["tensor_parallel"],
        pipeline_parallel=options["pipeline_parallel"],
        fine_tunes=options["fine_tunes"],
        derived_from=policy.derived_from,
        deny_base=not any(tenant.base for tenant in policy.tenants.values()),
        bundles=options["cache"].absolute(),
        enforce_eager=not options["compiled"],
    )


def _sizes(options: dict[str, Any], dtype: str) -> tuple[int, int]:
    """Return slots and capacity: as given, by a memory budget, or the defaults."""
    slots = _places(options, "slots", "slot_memory_gib", dtype, 1)
    slots = DEFAULT_SLOTS if slots is None else slots
    spare = slots + 1  # a swap holds two revisions of a bundle
    capacity = _places(options, "capacity", "host_memory_gib", dtype, spare)
    return slots, max(DEFAULT_CAPACITY, spare) if capacity is None else capacity


def _places(options: dict[str, Any], number: str, budget: str, dtype: str, least: int) -> int | None:
    from eul_serve.engine.memory import bundle_bytes, places

    option = f"--{budget.replace('_', '-')}"
    if options[budget] is None:
        given: int | None = options[number]
        return given
    if options[number] is not None:
        raise InputError(f"--{number} and {option}: expected one of the two; leave the other out")
    each = bundle_bytes(options["model"], options["max_rank"], dtype, options["pipeline_parallel"])
    return places(options[budget], each, option, least)


def _dtype(model: dict[str, Any]) -> str:
    """Return the dtype of a model's files, as its config says."""
    found = model.get("dtype") or model.get("torch_dtype")
    if not isinstance(found, str):
        raise InputError("--dtype auto: the model's config.json names no dtype; give --dtype float32 or bfloat16")
    return found


def _context(model: dict[str, Any]) -> int:
    """Return the model's longest context, at most `DEFAULT_CONTEXT`."""
    found = model.get("max_position_embeddings", DEFAULT_CONTEXT)
    return min(int(found), DEFAULT_CONTEXT)
