"""The attack: distances under a stored Gram less those under one of other rows, and what they tell apart.

A row that was in the Gram lies nearer to it. What all rows of the kind have in common is taken away by a Gram of rows
that the attacker has (difficulty calibration: Watson and others, arXiv:2111.08440).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

RIDGES = (1e-3, 1e-2, 1e-1)
"""Ridges relative to the mean of a block's diagonal; the attacker takes the best of them."""
FALSE_ALARMS = 0.01
"""Share of other tokens that the attacker may take for stored ones."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Eigenvectors and eigenvalues of a Gram's diagonal blocks."""

    parts: list[tuple[int, torch.Tensor, torch.Tensor]]  # first column, (blocks, w, w) vectors, (blocks, w) values

    @classmethod
    def of(cls, states: torch.Tensor, width: int) -> Spectrum:
        """Take the Gram of states, (n, d), apart."""
        parts = []
        for first, blocks, size in layout(states.shape[1], width):
            x = states[:, first : first + blocks * size].reshape(len(states), blocks, size).transpose(0, 1)
            values, vectors = torch.linalg.eigh(x.transpose(1, 2) @ x / len(states))
            parts.append((first, vectors, values.clamp_min(0)))
        return cls(parts)

    @classmethod
    def of_matrix(cls, gram: torch.Tensor) -> Spectrum:
        """Take a whole matrix apart."""
        values, vectors = torch.linalg.eigh(gram)
        return cls([(0, vectors[None], values.clamp_min(0)[None])])

    def distances(self, states: torch.Tensor) -> torch.Tensor:
        """Return the squared Mahalanobis distance of each state for each ridge, (ridges, T), per column."""
        found = torch.zeros(len(RIDGES), len(states))
        for first, vectors, values in self.parts:
            blocks, size = values.shape
            x = states[:, first : first + blocks * size].reshape(len(states), blocks, size).transpose(0, 1)
            z = (x @ vectors).square()  # (blocks, T, w)
            level = values.mean(1, keepdim=True).clamp_min(1e-12)
            for place, ridge in enumerate(RIDGES):
                found[place] += (z / (values + ridge * level)[:, None]).sum((0, 2))
        return found / states.shape[1]


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and variance of each number of states."""

    mean: torch.Tensor  # (d,)
    variance: torch.Tensor  # (d,)

    @classmethod
    def of(cls, states: torch.Tensor) -> Spread:
        """Take them of states, (n, d)."""
        return cls(states.mean(0), states.var(0, correction=0))

    def distances(self, states: torch.Tensor) -> torch.Tensor:
        """Return each state's squared distance from the mean, in variances, for each ridge, (ridges, T), per column."""
        level = self.variance.mean().clamp_min(1e-12)
        far = (states - self.mean).square()
        return torch.stack([(far / (self.variance + ridge * level)).mean(1) for ridge in RIDGES])


class Distant(Protocol):
    """Whatever was stored of states."""

    def distances(self, states: torch.Tensor) -> torch.Tensor:
        """Return how far states (T, d) are from what was stored, for each ridge, (ridges, T)."""
        ...


def layout(size: int, width: int) -> list[tuple[int, int, int]]:
    """Return the blocks of a Gram as (first column, number, width): the whole ones, and the rest."""
    whole, rest = divmod(size, min(width, size))
    found = [(0, whole, min(width, size))]
    return [*found, (size - rest, 1, rest)] if rest else found


def scores(stored: Sequence[Distant], known: Sequence[Distant], states: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return how much each token looks as if it were in the stored Grams, (ridges, T), the mean over modules."""
    found = [
        _log(there.distances(x)) - _log(here.distances(x)) for here, there, x in zip(stored, known, states, strict=True)
    ]
    return torch.stack(found).mean(0)


def _log(distances: torch.Tensor) -> torch.Tensor:
    return distances.clamp_min(1e-9).log()  # units that are silent on a token lie at 0 under every Gram


def by_row(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the mean over each row's tokens, (ridges, rows present)."""
    return torch.stack([values[:, rows == row].mean(1) for row in rows.unique()], dim=1)


def auc(inside: torch.Tensor, outside: torch.Tensor) -> float:
    """Return the chance that a random member scores above a random other one; ties count half."""
    higher = (inside[:, None] > outside[None]).float() + 0.5 * (inside[:, None] == outside[None]).float()
    return float(higher.mean())


def share_found(inside: torch.Tensor, outside: torch.Tensor) -> float:
    """Return the share of stored tokens above all but FALSE_ALARMS of the others."""
    return float((inside > torch.quantile(outside, 1 - FALSE_ALARMS)).float().mean())


def interval(values: Sequence[float], draws: int = 2000) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean."""
    generator = torch.Generator().manual_seed(0)
    x = torch.tensor(values)
    picks = torch.randint(len(x), (draws, len(x)), generator=generator)
    means = x[picks].mean(1)
    return float(torch.quantile(means, 0.025)), float(torch.quantile(means, 0.975))


def read_off(vectors: torch.Tensor, states: torch.Tensor, member: torch.Tensor, close: float = 0.9) -> float:
    """Return the share of eigenvectors, one a column, that nearly are a stored token's state: cosine above `close`."""
    cosines = (torch.nn.functional.normalize(states, dim=1) @ vectors).abs()
    best = cosines.max(0)
    return float(((best.values > close) & member[best.indices]).float().mean())
