"""Options of `fit` on what is trained toward what: objective, weights, target, and the text that must not suffer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eul_serve.errors import InputError
from eul_trainer.cli import options
from eul_trainer.objectives import NAMES

if TYPE_CHECKING:
    from eul_trainer.model.load import LoadedModel
    from eul_trainer.records import Fields, Row
    from eul_trainer.settings import FitSettings

_OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "--objective",
        {
            "type": click.Choice(NAMES),
            "default": "bounded",
            "show_default": True,
            "help": "bounded is meant for use; paper is the printed one; the others are known baselines.",
        },
    ),
    ("--trainable", {"default": "layer", "show_default": True, "help": "layer, lora (PEFT) or full (all weights)."}),
    ("--weight", {"multiple": True, "metavar": "NAME=VALUE", "help": "A weight of the objective; may be given again."}),
    ("--retain-term", {"help": "nll or kl, for an objective with a choice.  [default: the objective's own]"}),
    ("--target-low", {"type": float, "help": "Forget loss to reach, nats.  [default: 4.0]"}),
    ("--target-high", {"type": float, "help": "Forget loss not to exceed, nats.  [default: 5.0]"}),
    (
        "--target-rows",
        {"type": options.PATH, "metavar": "FILE", "help": "Take the target from the loss of these unseen rows."},
    ),
    ("--target-twin", {"metavar": "DIR", "help": "Take it from a model that was trained without the forget rows."}),
    (
        "--target-tolerance",
        {"type": float, "default": 0.1, "show_default": True, "help": "Half the width of such a target, nats."},
    ),
    ("--scale", {"type": float, "help": "Largest factor that brings the layer to its target.  [default: 4, paper 1]"}),
    (
        "--unrelated",
        {"type": options.PATH, "metavar": "FILE", "help": "Rows whose loss must not rise.  [default: those to keep]"},
    ),
    (
        "--unrelated-limit",
        {"type": float, "help": "Rise at which the run is given up, nats.  [default: 1, paper 0: off]"},
    ),
)


def aims(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options."""
    for name, settings in reversed(_OPTIONS):
        command = click.option(name, **settings)(command)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class Aims:
    """What was asked about the target and the unrelated text, beside the settings."""

    rows: Path | None
    """Unseen rows to take the target from."""
    twin: str | None
    """Twin model to take the target from."""
    tolerance: float
    """Half the width of the band, nats."""
    unrelated: Path | None
    """Rows whose loss must not rise."""

    def unrelated_rows(self, fields: Fields) -> list[Row]:
        """Read the unrelated rows, if a file was named."""
        from eul_trainer.records import read_rows

        return read_rows(self.unrelated, fields) if self.unrelated else []

    def settings(
        self, settings: FitSettings, model: LoadedModel, forget: list[Row], fields: Fields, *, quiet: bool
    ) -> FitSettings:
        """Return the settings with the target in place, which is measured where rows or a twin were named."""
        from eul_trainer.fit.targets import twin_target, unseen_target
        from eul_trainer.records import read_rows
        from eul_trainer.settings import override

        if self.rows:
            target = unseen_target(model, read_rows(self.rows, fields), self.tolerance)
        elif self.twin:
            target = twin_target(model, self.twin, forget, self.tolerance)
        else:
            return settings
        if not quiet:
            click.echo(f"target: a forget loss of {target.low:.2f} to {target.high:.2f} nats", err=True)
        return override(settings, {"target_low": target.low, "target_high": target.high})


def take_aims(chosen: dict[str, Any]) -> Aims:
    """Take what is no setting out of a command's options, and put the weights among them in the settings' form.

    Args:
        chosen: The options by name, as given; changed in place.

    Returns:
        What was taken.

    Raises:
        InputError: A weight is no NAME=VALUE, or the target is given twice.
    """
    chosen["weights"] = dict(_weight(text) for text in chosen.pop("weight", ())) or None
    found = Aims(
        rows=chosen.pop("target_rows", None),
        twin=chosen.pop("target_twin", None),
        tolerance=chosen.pop("target_tolerance", 0.1),
        unrelated=chosen.pop("unrelated", None),
    )
    numbers = chosen.get("target_low") is not None or chosen.get("target_high") is not None
    if sum((numbers, found.rows is not None, found.twin is not None)) > 1:
        raise InputError(
            "target: expected one of --target-low/--target-high, --target-rows and --target-twin; drop the others"
        )
    return found


def _weight(text: str) -> tuple[str, float]:
    name, found, value = text.partition("=")
    try:
        return name, float(value if found else "none")
    except ValueError:
        raise InputError(f"--weight {text!r}: expected NAME=VALUE with a number, such as beta=0.1") from None
