"""What layers do on each other's answers, as far as stored means and variances tell: X of solve.py.

A layer never saw the other requests' rows, and takes them for its own a little. Of ten layers side by side each answer
then gets its own push and a part of nine others, and is forgotten much further than any one layer would. No row of
another request may be read, so a block's output y on request i's answers is drawn from what its layer stores,

    y ~ N(mean_i, diag(variance_i)),    X = crosstalk * sum_i E_i phi_i phi_i^T

where phi_i are the hidden units of all layers but i's own, whose true moments are in F, and those that were on while it
was trained, which are a part of what it learned. The draws depend on a layer's revision and module alone, so that a
request can be revoked as if it had never been fused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch

from eul_serve.errors import InputError
from eul_trainer.fusion.gated import Stack, units_of
from eul_trainer.fusion.job import Job, moments_of
from eul_trainer.fusion.members import Member

DRAWS = 192
"""Draws of y for each request and block."""


def crosstalk(job: Job, stack: Mapping[str, Stack]) -> dict[str, torch.Tensor]:
    """Return X of every block.

    Args:
        job: The fusion; its weight of crosstalk and its members' moments are read.
        stack: The members side by side, by module path.

    Returns:
        X by module path, (n, n), float64; empty where there is no retain set or the weight is 0.

    Raises:
        InputError: A member's moments are not stored.
    """
    weight = job.settings.crosstalk
    if not job.moments or not weight:
        return {}
    return {module: weight * _heard(job, module, layer) for module, layer in stack.items()}


def _heard(job: Job, module: str, layer: Stack) -> torch.Tensor:
    owners = [member.revision for member in job.members for _ in range(member.rank)]  # of each unit
    total = torch.zeros(len(owners), len(owners), dtype=torch.float64)
    for member in job.members:
        known = {member.revision, *member.on_top_of}
        foreign = torch.tensor([owner not in known for owner in owners])
        units = units_of(layer, draws(member, module)).double() * foreign
        total += units.T @ units / DRAWS
    return total


def draws(member: Member, module: str) -> torch.Tensor:
    """Return draws of a block's output on a member's answers.

    Args:
        member: The member.
        module: Path of the module.

    Returns:
        The draws, (DRAWS, d), float32; the same at every call.

    Raises:
        InputError: The member's moments are not stored.
    """
    mean, variance = spread_of(member, module)
    seed = int.from_bytes(hashlib.sha256(f"{member.revision} {module}".encode()).digest()[:7], "big")
    noise = torch.randn(DRAWS, len(mean), generator=torch.Generator().manual_seed(seed))
    return mean + noise * variance.sqrt()


def spread_of(member: Member, module: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and variance of each number of a block's output on a member's answers, (d,) each.

    Args:
        member: The member.
        module: Path of the module.

    Returns:
        Both; files of version 2 have the variances in the second moments of the inputs, where they have those.

    Raises:
        InputError: They are not stored.
    """
    found = moments_of(member).moments[module]
    if found.mean is not None and found.variance is not None:
        return found.mean, found.variance
    if found.mean is not None and found.inputs is not None:
        squares = found.inputs.dense().diagonal()[:-1]
        return found.mean, (squares - found.mean.square()).clamp_min(0)
    raise InputError(
        f"request {member.request.id!r}: its statistics have no means and variances of the blocks' outputs, which tell "
        "how far other layers act on its answers; train it again, or give --crosstalk 0"
    )
