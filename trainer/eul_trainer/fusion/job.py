"""What every fusion method takes and gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from eul_serve.errors import InputError
from eul_trainer.fusion.gated import Stack
from eul_trainer.fusion.members import Member
from eul_trainer.fusion.retained import Retained
from eul_trainer.fusion.settings import FuseSettings
from eul_trainer.fusion.store import RetainMoments
from eul_trainer.moments.statistics import MIN_TOKENS, LayerStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One fusion: at least two layers, and what is known of retained rows."""

    members: Sequence[Member]
    """The layers, in the order of their units."""
    settings: FuseSettings
    """The settings."""
    moments: Mapping[str, RetainMoments] = field(default_factory=dict)
    """Moments on retained rows by module path; empty without a retain set."""
    retained: Retained | None = None
    """The rows and the model themselves; None where a bundle is made again from what it stores."""

    @property
    def modules(self) -> list[str]:
        """Paths of the wrapped modules."""
        return list(self.members[0].layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused:
    """The outcome of a fusion."""

    layers: Mapping[str, Stack]
    """The layers by module path."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What was found on the way, for the manifest, plain JSON."""


def moments_of(member: Member) -> LayerStatistics:
    """Return a member's stored moments.

    Args:
        member: The member.

    Returns:
        Its moments, never empty.

    Raises:
        InputError: They are not there; says why.
    """
    found, who = member.statistics, f"request {member.request.id!r}"
    way_out = "use --method concat without --retain"
    if found is None:
        raise InputError(
            f"{who}: its layer came without fusion.safetensors, which this fusion needs; use the directory that "
            f"eul-train fit wrote, or {way_out}"
        )
    if not found.moments and found.tokens < MIN_TOKENS:
        raise InputError(
            f"{who}: its forget set has {found.tokens} answer tokens; below {MIN_TOKENS} no statistics are stored, as "
            f"they would show the rows; {way_out}"
        )
    if not found.moments:
        raise InputError(f"{who}: trained with --statistics none; {way_out}, or train it again with --statistics units")
    return found


def inputs_of(member: Member, module: str) -> torch.Tensor:
    """Return the second moment of a module's output, with a 1 appended, on a member's answers, (d + 1, d + 1)."""
    found = moments_of(member).moments[module].inputs
    if found is None:
        raise _no_inputs(member)
    return found.dense()


def mean_of(member: Member, module: str) -> torch.Tensor:
    """Return the mean of a module's output on a member's answers, (d,)."""
    found = moments_of(member).moments[module].mean
    if found is None:
        raise _no_inputs(member)
    return found


def _no_inputs(member: Member) -> InputError:
    return InputError(
        f"request {member.request.id!r}: its statistics have no moments of the inputs, which this method reads; train "
        "it again with --statistics full, or use --method concat"
    )


def retained_inputs(job: Job, module: str) -> torch.Tensor:
    """Return the second moment of a module's output, with a 1 appended, on retained rows, (d + 1, d + 1)."""
    found = job.moments[module].inputs
    if found is None:
        raise InputError(
            f"module {module!r}: no moments of its output on retained rows are stored; fuse the layers again"
        )
    return found


def forget_grams(members: Sequence[Member]) -> dict[str, list[torch.Tensor]]:
    """Return the members' own unit Grams by module path, in the order of the members."""
    statistics = [moments_of(member) for member in members]
    return {module: [found.moments[module].units for found in statistics] for module in members[0].layers}
