"""Normal distributions of a module's output, from stored first and second moments."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from eul_trainer.fusion.job import Job, inputs_of, mean_of, moments_of, retained_inputs
from eul_trainer.fusion.members import Member
from eul_trainer.moments.statistics import block_diagonal, block_width

JITTER = 1e-5
"""What is added to a covariance's diagonal so that it has a root, relative to its mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Normal:
    """Mean and covariance of a module's output y, float64."""

    mean: torch.Tensor  # (d,)
    covariance: torch.Tensor  # (d, d)

    def root(self) -> torch.Tensor:
        """Return L, (d, d), with L L^T the covariance, up to the jitter; where that is not enough, its square root."""
        level = max(JITTER * float(self.covariance.diagonal().mean()), 1e-12)
        wide = self.covariance + level * torch.eye(len(self.mean), dtype=torch.float64)
        root: torch.Tensor
        root, bad = torch.linalg.cholesky_ex(wide)
        if bad:  # a low-rank Gram less the mean's square may have a negative eigenvalue
            values, vectors = torch.linalg.eigh(wide)
            root = vectors * values.clamp_min(0).sqrt()
        return root


def forgotten(member: Member, module: str) -> Normal:
    """Return the distribution of a module's output on a member's forgotten answers, as far as its blocks tell.

    Between stored blocks nothing is known; there the covariance is taken to be zero.

    Args:
        member: The member.
        module: Path of the module.

    Returns:
        The distribution.
    """
    mean = mean_of(member, module).double()
    gram = inputs_of(member, module).double()[:-1, :-1]
    blocks = block_width(moments_of(member).tokens)
    return Normal(mean=mean, covariance=block_diagonal(gram - torch.outer(mean, mean), blocks))


def kept(job: Job, module: str) -> Normal:
    """Return the distribution of a module's output on retained rows."""
    gram = retained_inputs(job, module).double()
    mean = gram[-1, :-1]
    return Normal(mean=mean, covariance=gram[:-1, :-1] - torch.outer(mean, mean))
