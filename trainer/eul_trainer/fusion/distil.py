"""One layer of low rank that imitates the layers side by side, block by block, on inputs drawn from stored moments.

Neither forgotten nor retained rows are run: y ~ N(mean_i, Cov_i) of each request's answers, as far as its stored blocks
tell, and y ~ N(mean, Cov) of retained rows, where the target is silence:

    loss = mean_i E_i |f(y) - g(y)|^2 / E_i |f(y)|^2 + rho E_R |g(y)|^2 / mean_i E_i |f(y)|^2

f is the sum of the layers, g the layer that is trained; it starts from compress.py's choice of units.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eul_serve.format.weights import LayerWeights
from eul_trainer.fusion.compress import compressed
from eul_trainer.fusion.concat import concat
from eul_trainer.fusion.gated import units_of
from eul_trainer.fusion.job import Fused, Job
from eul_trainer.fusion.normal import Normal, forgotten, kept
from eul_trainer.fusion.settings import FuseSettings

SAMPLES = 128
"""Draws per step from all requests together, and a quarter as many from retained rows."""
RATE = 1e-3
"""Highest learning rate, relative to the mean size of a weight."""


def fuse(job: Job) -> Fused:
    """Train one layer per block to imitate the sum of the layers.

    Args:
        job: The fusion.

    Returns:
        The layers at the wanted rank, by default the largest of the members'.
    """
    rank = job.settings.rank or max(member.rank for member in job.members)
    starts, facts = compressed(job, rank)
    fused, errors = {}, []
    for place, (module, teacher) in enumerate(concat(job.members).items()):
        requests = [forgotten(member, module) for member in job.members]
        quiet = kept(job, module) if job.moments else None
        draw = torch.Generator().manual_seed(job.settings.seed + place)
        imitation = Imitation(teacher, requests, quiet, job.settings.weight_of(module), draw)
        fused[module], error = imitation.train(starts[module], job.settings)
        errors.append(error)
    return Fused(layers=fused, facts={"rank": facts["rank"], "distil_error": round(max(errors), 6)})


class Imitation:
    """The task of one block: what to imitate, and where."""

    def __init__(
        self,
        teacher: LayerWeights,
        requests: Sequence[Normal],
        quiet: Normal | None,
        weight: float,
        draw: torch.Generator,
    ) -> None:
        self.teacher, self.weight, self.draw = teacher, weight, draw
        self.requests = [(found.mean.float(), found.root().float()) for found in requests]
        self.quiet = None if quiet is None else (quiet.mean.float(), quiet.root().float())

    def loss(self, student: LayerWeights) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss on fresh draws: how far it is from the teacher, relatively, and how loud on retained rows."""
        each = max(1, SAMPLES // len(self.requests))
        parts, sizes = [], []
        for mean, root in self.requests:
            y = self._sample(mean, root, each)
            wanted = output_of(self.teacher, y)
            sizes.append(_energy(wanted).clamp_min(1e-12))
            parts.append(_energy(wanted - output_of(student, y)) / sizes[-1])
        far = torch.stack(parts).mean()
        if self.quiet is None:
            return far, torch.zeros(())
        y = self._sample(*self.quiet, SAMPLES // 4)
        return far, self.weight * _energy(output_of(student, y)) / torch.stack(sizes).mean()

    def _sample(self, mean: torch.Tensor, root: torch.Tensor, count: int) -> torch.Tensor:
        return mean + torch.randn(count, len(mean), generator=self.draw) @ root.T

    def train(self, start: LayerWeights, settings: FuseSettings) -> tuple[LayerWeights, float]:
        """Train a student.

        Args:
            start: Where it starts.
            settings: The number of steps is read.

        Returns:
            The student, and the mean over the last steps of how far it was from the teacher.
        """
        down, up = (tensor.detach().clone().requires_grad_() for tensor in (start.down, start.up))
        bias = None if start.bias is None else start.bias.detach().clone().requires_grad_()
        student = LayerWeights(down, up, bias, start.activation)
        groups = [
            {"params": [part], "top": RATE * max(float(part.detach().abs().mean()), 1e-3)}
            for part in (down, up, bias)
            if part is not None
        ]
        optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
        last: list[float] = []
        for step in range(settings.distil_steps):
            for group in optimizer.param_groups:
                group["lr"] = 30 * group["top"] * (1 - step / settings.distil_steps)
            far, loud = self.loss(student)
            optimizer.zero_grad()
            (far + loud).backward()  # type: ignore[no-untyped-call]  # torch has no type for it
            optimizer.step()
            last = [*last[-9:], far.item()]
        with torch.no_grad():
            last = last or [self.loss(student)[0].item()]
        found = LayerWeights(down.detach(), up.detach(), None if bias is None else bias.detach(), start.activation)
        return found, sum(last) / len(last)


def output_of(layer: LayerWeights, y: torch.Tensor) -> torch.Tensor:
    """Return `U act(D y + b)`, (..., d), for y (..., d)."""
    return torch.nn.functional.linear(units_of(layer, y), layer.up)


def _energy(outputs: torch.Tensor) -> torch.Tensor:
    """Return the mean square length of outputs (n, d)."""
    return outputs.square().sum(-1).mean()
