"""What the commands that train all weights share: their options, and progress with a rate and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from eul_trainer.cli import options
from eul_trainer.cli.progress import Advance

Command = TypeVar("Command", bound=Callable[..., Any])

data = click.option(
    "--data", required=True, type=options.PATH, metavar="FILE", help="JSON lines that the model must learn."
)
fresh = click.option("--fresh", is_flag=True, help="Start anew even where a killed run could go on.")


def settings(epochs: int, learning_rate: str) -> Callable[[Command], Command]:
    """Return the decorator that adds the options of a training run.

    Args:
        epochs: Default number of passes, for the help text.
        learning_rate: Default learning rate, for the help text.

    Returns:
        The decorator.
    """
    added = (
        click.option("--epochs", type=int, default=None, help=f"Passes over the rows.  [default: {epochs}]"),
        click.option("--learning-rate", type=float, default=None, help=f"[default: {learning_rate}]"),
        click.option("--batch-size", type=int, default=None, help="Rows per step.  [default: 8]"),
        click.option("--warm-up", type=float, default=None, help="Share of the steps that warm up.  [default: 0.06]"),
        click.option("--seed", type=int, default=None, help="Seed of the order of the rows.  [default: 0]"),
        click.option("--dtype", default=None, help="Format of products: auto, float32 or bfloat16.  [default: auto]"),
    )

    def add(command: Command) -> Command:
        for option in reversed(added):
            command = option(command)
        return command

    return add


def given(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the command line names; None stands for the default."""
    return {name: value for name, value in chosen.items() if value is not None}


class Meter:
    """Puts a step's loss, the rate and the time left into words."""

    def __init__(self, advance: Advance, total: int) -> None:
        self._advance, self._total = advance, total
        self._started = time.perf_counter()
        self._tokens, self._steps = 0, 0

    def __call__(self, done: int, loss: float, tokens: int) -> None:
        """Tell of a step: steps done in all, its loss in nats, its tokens."""
        self._tokens += tokens
        self._steps += 1  # those of this call alone: a killed run's seconds are not in the rate
        spent = time.perf_counter() - self._started
        left = spent / self._steps * (self._total - done)
        self._advance(done, f"loss {loss:.2f}, {self._tokens / spent:.0f} tokens/s, {left:.0f} s left")
