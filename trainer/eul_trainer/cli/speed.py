"""Options of `fit` on what a step costs: blocks, precision, recomputation and cached states."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

_OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "--blocks",
        {"metavar": "WHICH", "help": "Blocks with a layer: all, FIRST-LAST (from 0) or top-N.  [default: all]"},
    ),
    (
        "--dtype",
        {
            "type": click.Choice(["float32", "bfloat16", "auto"]),
            "help": "Precision of the frozen base model; auto is bfloat16 where that is fast.  [default: float32]",
        },
    ),
    (
        "--checkpointing",
        {
            "is_flag": True,
            "default": None,
            "help": "Compute activations again on the way back: less memory, more time.",
        },
    ),
    (
        "--cache-memory",
        {"type": int, "metavar": "MIB", "help": "Memory for cached states; more goes to a file.  [default: 1024]"},
    ),
)


def speed(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options, and a dtype that is settled where `auto` was asked for."""

    @functools.wraps(command)
    def settled(**given: Any) -> None:  # noqa: ANN401  # the options of any command
        from eul_trainer.model.precision import AUTO, best_dtype

        if given["dtype"] == AUTO:
            given["dtype"] = best_dtype(given["device"])
        command(**given)

    for name, settings in reversed(_OPTIONS):
        settled = click.option(name, **settings)(settled)
    return settled
