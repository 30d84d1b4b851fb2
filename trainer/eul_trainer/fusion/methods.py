"""The fusion methods: what each reads and needs. A method is one file with a function from a Job to what it fused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from eul_serve.errors import InputError
from eul_trainer.fusion import compress, concat, distil, gate, regression
from eul_trainer.fusion.gated import Stack
from eul_trainer.fusion.job import Fused, Job
from eul_trainer.fusion.members import Member
from eul_trainer.fusion.settings import RHO, FuseSettings

_HEAL = ("heal_steps", "heal_rate", "heal_anchor")
_SOLVE = ("ridge", "rho", "rho_blocks")
_CORRECT = (*_SOLVE, "crosstalk", "retain_limit", "calibration_rows", "keep_energy", *_HEAL, "seed")


def side_by_side(members: Sequence[Member], settings: FuseSettings) -> Mapping[str, Stack]:
    """Return the members side by side, without gates."""
    return concat.concat(members)


def behind_gates(members: Sequence[Member], settings: FuseSettings) -> Mapping[str, Stack]:
    """Return the members side by side behind their gates."""
    return gate.gated(members, settings.gate_slope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One way to fuse layers."""

    fuse: Callable[[Job], Fused]
    """The method itself, for two layers or more."""
    reads: tuple[str, ...]
    """Settings that it reads."""
    retain: str
    """Whether it reads retained rows: optional, or `retain_weight`, where that setting is above 0."""
    inputs: bool = False
    """Whether it reads the moments of the blocks' outputs on retained rows, beside those of the units."""
    stack: Callable[[Sequence[Member], FuseSettings], Mapping[str, Stack]] = side_by_side
    """The members before any correction, on which retained rows are measured."""
    own_units: bool = False
    """Whether each request has units of its own, all ranks added up."""
    written: bool = True
    """Whether the bundle format can hold the outcome."""


METHODS: dict[str, Method] = {
    "concat": Method(fuse=concat.fuse, reads=_CORRECT, retain="optional", own_units=True),
    "regression": Method(
        fuse=regression.fuse, reads=("ridge", "shrink", "retain_weight"), retain="retain_weight", inputs=True
    ),
    "compress": Method(fuse=compress.fuse, reads=(*_SOLVE, "crosstalk", "rank", "energy"), retain="optional"),
    "distil": Method(
        fuse=distil.fuse, reads=(*_SOLVE, "crosstalk", "rank", "distil_steps", "seed"), retain="optional", inputs=True
    ),
    "gate": Method(
        fuse=gate.fuse,
        reads=(*_CORRECT, "gate_slope"),
        retain="optional",
        stack=behind_gates,
        own_units=True,
        written=False,
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
    if asking and not retain:
        what = f"--{asking[0].replace('_', '-')}"
        raise InputError(f"{what}: needs retained rows; name them with --model DIR and --retain FILE")
    if settings.rho is not None and settings.retain_limit is not None:
        raise InputError("--rho and --retain-limit: expected one of them; the limit is what chooses rho")
    return method


def resolved(settings: FuseSettings) -> FuseSettings:
    """Return settings in which the weight of retained data is decided: the default, where no limit is to choose it."""
    decided = settings.rho is not None or settings.retain_limit is not None
    return settings if decided or "rho" not in METHODS[settings.method].reads else replace(settings, rho=RHO)
