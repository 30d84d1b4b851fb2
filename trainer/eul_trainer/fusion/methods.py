"""The fusion methods: what each reads and needs. A method is one file with a function from a Job to what it fused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

from eul_serve.errors import InputError
from eul_trainer.fusion import compress, concat, distil, gate, regression
from eul_trainer.fusion.job import Fused, Job
from eul_trainer.fusion.settings import FuseSettings

_HEAL = ("heal_steps", "heal_rate", "heal_anchor")
_SOLVE = ("ridge", "rho", "rho_blocks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One way to fuse layers."""

    fuse: Callable[[Job], Fused]
    """The method itself, for two layers or more."""
    reads: tuple[str, ...]
    """Settings that it reads."""
    retain: str
    """Whether it reads retained rows: optional, needed, or `retain_weight`, where that setting is above 0."""
    inputs: bool = False
    """Whether it reads the moments of the blocks' outputs on retained rows, beside those of the units."""
    own_units: bool = False
    """Whether each request has units of its own, all ranks added up."""
    written: bool = True
    """Whether the bundle format can hold the outcome."""


METHODS: dict[str, Method] = {
    "concat": Method(
        fuse=concat.fuse,
        reads=(*_SOLVE, "retain_limit", "calibration_rows", "keep_energy", *_HEAL, "seed"),
        retain="optional",
        own_units=True,
    ),
    "regression": Method(
        fuse=regression.fuse, reads=("ridge", "shrink", "retain_weight"), retain="retain_weight", inputs=True
    ),
    "compress": Method(fuse=compress.fuse, reads=(*_SOLVE, "rank", "energy"), retain="optional"),
    "distil": Method(fuse=distil.fuse, reads=(*_SOLVE, "rank", "distil_steps", "seed"), retain="optional", inputs=True),
    "gate": Method(
        fuse=gate.fuse, reads=("ridge", "gate_slope"), retain="needed", inputs=True, own_units=True, written=False
    ),
}


def check_settings(settings: FuseSettings, *, retain: bool) -> Method:
    """Return the method of the settings, if it reads all that is set.

    Args:
        settings: The settings.
        retain: Whether a model and retained rows are there.

    Returns:
        The method.

    Raises:
        InputError: A setting has no effect, or one needs retained rows that are not there.
    """
    name, method, plain = settings.method, METHODS[settings.method], FuseSettings()
    changed = {found.name for found in fields(settings) if getattr(settings, found.name) != getattr(plain, found.name)}
    for setting in sorted(changed - {"method", *method.reads}):
        readers = " or ".join(f"--method {other}" for other, found in METHODS.items() if setting in found.reads)
        raise InputError(f"--{setting.replace('_', '-')}: not read by --method {name}; leave it out, or use {readers}")
    if method.retain == "retain_weight" and retain != (settings.retain_weight > 0):
        given, missing = ("--retain", "--retain-weight") if retain else ("--retain-weight", "--model and --retain")
        raise InputError(f"{given}: read by --method {name} together with {missing}; give both or neither")
    asking = [name for name in ("retain_limit", "heal_steps") if getattr(settings, name)]
    if not retain and (method.retain == "needed" or asking):
        what = f"--{asking[0].replace('_', '-')}" if asking else f"--method {name}"
        raise InputError(f"{what}: needs retained rows; name them with --model DIR and --retain FILE")
    return method
