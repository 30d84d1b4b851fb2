"""What `fuse` and `revoke` say of the bundle that they wrote, and the settings that `fuse` takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from eul_trainer.cli.main import emit

if TYPE_CHECKING:
    from eul_serve.format import Bundle

_SETTINGS: tuple[tuple[str, type, str], ...] = (
    ("--rho", float, "Weight of retained data in the solve of concat, compress, distil.  [default: 10]"),
    ("--crosstalk", float, "Weight of what layers do on each other's answers; not for regression.  [default: 0.3]"),
    ("--rho-blocks", str, "Weights of single blocks instead, such as 0-9=0.3,29=0.01."),
    ("--retain-limit", float, "concat: take the smallest rho that lets no group's retained loss rise by more, nats."),
    ("--calibration-rows", int, "Most retained rows that the rise is measured on.  [default: 64]"),
    ("--heal-steps", int, "concat: gradient steps on retained rows after the solve.  [default: 0]"),
    ("--heal-rate", float, "Their learning rate.  [default: 0.001]"),
    ("--heal-anchor", float, "How strongly they are held to the solve.  [default: 1]"),
    ("--rank", int, "compress, distil: hidden units of the bundle.  [default: by --energy; the layers' rank]"),
    ("--energy", float, "compress: share of output energy that every block keeps.  [default: 0.99]"),
    ("--distil-steps", int, "distil: steps per block.  [default: 200]"),
    ("--shrink", float, "regression: factor on the Grams' off-diagonals.  [default: 1]"),
    ("--retain-weight", float, "regression: weight of retained data.  [default: 0]"),
    ("--gate-slope", float, "gate: slope of the gates.  [default: 1]"),
    ("--ridge", float, "Relative ridge of every solve.  [default: 0.0001]"),
    ("--seed", int, "Seed of healing and distillation.  [default: 0]"),
)


def settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a fusion's settings, each None where it is not given."""
    for name, kind, text in reversed(_SETTINGS):
        command = click.option(name, type=kind, default=None, help=text)(command)
    return command


def tell(bundle: Bundle, words: str, as_json: bool) -> None:
    """Print what was written: a line in words and one with the path, or one line of JSON.

    Args:
        bundle: The bundle.
        words: What was done.
        as_json: Whether to print JSON.
    """
    facts: dict[str, Any] = bundle.manifest.settings["fusion"]
    numbers = ("rho", "retain_rise", "energy_kept", "distil_error")
    found: dict[str, Any] = {name: facts[name] for name in numbers if name in facts}
    if as_json:
        requests = [request.id for request in bundle.manifest.requests]
        known = {"path": str(bundle.path), "revision": bundle.revision, "method": facts["method"]}
        emit({**known, "requests": requests, "rank": bundle.config.rank, **found})
        return
    more = "".join(f", {name.replace('_', ' ')} {value:g}" for name, value in found.items() if name != "rho")
    click.echo(words + more)
    click.echo(f"wrote {bundle.path} {bundle.revision}")
