"""How many bundles fit a memory budget: in slots on the device, and in the workers' host memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eul_serve.engine.settings import held_rank
from eul_serve.errors import InputError
from eul_serve.format.fingerprint import read_model_config

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
MOST = 100_000
"""Bundles of one engine, whatever the memory."""


def bundle_bytes(model: Path, rank: int, dtype: str, pipeline_parallel: int = 1) -> int:
    """Return what a bundle of the highest rank takes in one worker: D, b and U behind every block that it holds.

    Tensor parallelism does not lessen it: the layers stand behind the sum over devices. On a CPU a slot takes less
    where its bundle's own rank is lower.

    Args:
        model: Directory of the base model.
        rank: Highest rank of a bundle.
        dtype: dtype of the engine.
        pipeline_parallel: Groups of devices that hold a part of the blocks each.

    Returns:
        Bytes.

    Raises:
        InputError: The model's config does not name its sizes.
    """
    config = read_model_config(model)
    blocks, width = (_size(model, config, name) for name in ("num_hidden_layers", "hidden_size"))
    return -(-blocks // pipeline_parallel) * held_rank(rank) * (2 * width + 1) * ITEM_BYTES[dtype]


def _size(model: Path, config: dict[str, Any], name: str) -> int:
    found = config.get(name)
    if type(found) is not int or found < 1:
        raise InputError(
            f"model {str(model)!r}: {name}: expected a number in config.json, found {found!r:.40}; give --slots instead"
        )
    return found


def places(budget_gib: float, each: int, option: str, least: int = 1) -> int:
    """Return how many bundles fit.

    Args:
        budget_gib: Memory, in GiB.
        each: Bytes of one bundle.
        option: The option that gave the budget, for the message.
        least: Fewest that are of use.

    Returns:
        Their number.

    Raises:
        InputError: Fewer than that fit.
    """
    found = min(MOST, int(budget_gib * 2**30 / each)) if budget_gib > 0 else 0
    if found < least:
        raise InputError(
            f"{option}: expected {least * each / 2**30:.3g} GiB or more, for {least} bundles of "
            f"{each / 2**20:.3g} MiB, found {budget_gib:g}; give more, or lower --max-rank"
        )
    return found
