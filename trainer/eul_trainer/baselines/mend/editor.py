"""The editor: a small network for each shape of weight, which turns a token's gradient factors into others.

With z the normalised factors of a token, and s, o of the weight at hand (arXiv 2110.11309, equation 3):

    h = z + relu(s1 * (U1 V1 z + b) + o1)
    g = h + relu(s2 * (U2 V2 h) + o2)

U starts at zero, so that an untrained editor takes a step along the normalised gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from eul_trainer.baselines.mend.factors import Factors
from eul_trainer.baselines.mend.settings import MendSettings

Shape = tuple[int, int]
"""Inputs and outputs of a linear map."""


class Transform(torch.nn.Module):
    """The network for the weights of one shape; `count` weights share it."""

    def __init__(self, shape: Shape, count: int, rank: int) -> None:
        super().__init__()
        width = sum(shape)
        self.shape = shape
        self.down = torch.nn.ParameterList([torch.randn(rank, width) / width**0.5 for _ in range(2)])
        self.up = torch.nn.ParameterList([torch.zeros(width, rank) for _ in range(2)])
        self.bias = torch.nn.Parameter(torch.zeros(width))
        self.scale = torch.nn.Parameter(torch.ones(count, 2, width))
        self.offset = torch.nn.Parameter(torch.zeros(count, 2, width))
        self.register_buffer("mean", torch.zeros(count, width))
        self.register_buffer("deviation", torch.ones(count, width))
        self.mean: torch.Tensor
        self.deviation: torch.Tensor

    def normalise(self, number: int, factors: Factors) -> torch.Tensor:
        """Return z, (t, d_in + d_out)."""
        joined = torch.cat([factors.inputs, factors.deltas], dim=-1)
        return (joined - self.mean[number]) / (self.deviation[number] + 1e-7)

    def forward(self, number: int, factors: Factors) -> Factors:
        """Return the factors of the change of a weight, before its step size."""
        state = self.normalise(number, factors)
        for layer in range(2):
            inner = state @ self.down[layer].T @ self.up[layer].T + (self.bias if layer == 0 else 0.0)
            state = state + torch.relu(self.scale[number, layer] * inner + self.offset[number, layer])
        return Factors(inputs=state[:, : self.shape[0]], deltas=state[:, self.shape[0] :])


class Editor(torch.nn.Module):
    """The transforms of all shapes, and each weight's step size."""

    def __init__(self, shapes: Mapping[str, Shape], settings: MendSettings) -> None:
        super().__init__()
        torch.manual_seed(settings.seed)
        groups: dict[Shape, list[str]] = {}
        for path, shape in shapes.items():
            groups.setdefault(shape, []).append(path)
        self.kinds = list(groups)
        self.place = {path: (self.kinds.index(shape), groups[shape].index(path)) for path, shape in shapes.items()}
        self.transforms = torch.nn.ModuleList(
            [Transform(shape, len(paths), settings.rank) for shape, paths in groups.items()]
        )
        start = torch.tensor(settings.step_size).log()
        self.log_steps = torch.nn.ParameterDict(
            {path.replace(".", "/"): torch.nn.Parameter(start.clone()) for path in shapes}
        )

    def transform(self, path: str) -> tuple[Transform, int]:
        """Return a weight's transform and its number there."""
        kind, number = self.place[path]
        found = self.transforms[kind]
        assert isinstance(found, Transform), "the list holds transforms alone"
        return found, number

    @torch.no_grad()
    def calibrate(self, seen: Sequence[Mapping[str, Factors]]) -> None:
        """Take mean and deviation of every factor's numbers from a few batches of edits."""
        for path in self.place:
            transform, number = self.transform(path)
            tokens = torch.cat([torch.cat([found[path].inputs, found[path].deltas], dim=-1) for found in seen])
            transform.mean[number] = tokens.mean(0)
            transform.deviation[number] = tokens.std(0)

    def forward(self, factors: Mapping[str, Factors]) -> dict[str, Factors]:
        """Return the factors of each weight's change, `alpha * sum of delta u'`, to be subtracted."""
        found = {}
        for path, given in factors.items():
            transform, number = self.transform(path)
            made = transform(number, given)
            step = self.log_steps[path.replace(".", "/")].exp()
            found[path] = Factors(inputs=made.inputs, deltas=step * made.deltas)
        return found
