"""Out of memory: one line that names the settings to change, with their values now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from eul_serve.errors import CapacityError
from eul_trainer.settings import FitSettings

_SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "cuda error: out of")
"""How torch's allocators say it, in lower case."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that a device or the machine has no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


@contextmanager
def advised(settings: FitSettings, doing: str) -> Iterator[None]:
    """Turn an error about memory into one line of advice.

    Args:
        settings: The run's settings.
        doing: What was being done, for the message.

    Yields:
        Nothing.

    Raises:
        CapacityError: There was no memory; the message names what to change.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise CapacityError(f"out of memory {doing}: {advice(settings)}") from error


def advice(settings: FitSettings) -> str:
    """Return the settings that take memory, those that cost least to change first.

    Args:
        settings: The run's settings.

    Returns:
        One line.
    """
    ways = []
    if not settings.checkpointing:
        ways.append("turn on --checkpointing (now off)")
    if settings.batch_size > 2:
        ways.append(f"lower --batch-size (now {settings.batch_size})")
    if settings.cache_memory > 0:
        ways.append(f"lower --cache-memory (now {settings.cache_memory} MiB)")
    if settings.dtype != "bfloat16":
        ways.append(f"use --dtype bfloat16 (now {settings.dtype})")
    if settings.blocks == "all":
        ways.append("put layers on the top blocks only with --blocks top-10 (now all)")
    ways.append("shorten the longest rows, or use a device with more memory")
    return "; ".join(ways)
