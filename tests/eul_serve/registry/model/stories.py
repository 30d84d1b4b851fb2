"""Many worlds, one after the other, until so many acts were done or a promise was broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eul_serve.format import Bundle
from tests.eul_serve.conftest import write_plain_bundle
from tests.eul_serve.registry.model.client import Defences
from tests.eul_serve.registry.model.machine import World

ACTS = 50
"""Acts of one world."""
REQUESTS = (["r1"], ["r1", "r2"], ["r2"], ["r1"], ["r1", "r2", "r3"])
"""What the bundles cover that are published."""


@dataclass(slots=True, kw_only=True)
class Told:
    """What happened in some worlds."""

    steps: int = 0
    """Acts that were begun."""
    operations: int = 0
    """Operations of the store that they took."""
    crashes: int = 0
    """Clients that were killed."""
    seeds: list[int] = field(default_factory=list)
    """Seeds of the worlds, in their order."""
    problems: list[str] = field(default_factory=list)
    """Broken promises, each with the seed that shows it again."""


def write_bundles(folder: Path) -> list[Bundle]:
    """Write the bundles that are published, into an existing folder."""
    return [write_plain_bundle(folder / str(seed), covers, seed=seed) for seed, covers in enumerate(REQUESTS)]


def tell(bundles: Sequence[Bundle], steps: int, first: int = 0, defences: Defences | None = None) -> Told:
    """Run worlds.

    Args:
        bundles: What may be published.
        steps: How many acts to do.
        first: Seed of the first world; each has the next number.
        defences: What holds.

    Returns:
        What happened; the last world may have broken a promise, and then it is the last.
    """
    told = Told()
    while told.steps < steps and not told.problems:
        world = World(bundles, first + len(told.seeds), defences)
        world.run(min(ACTS, steps - told.steps))
        told.steps += sum(world.acts.values())
        told.operations += world.operations
        told.crashes += world.crashes
        told.problems += [f"seed {first + len(told.seeds)}: {problem}" for problem in world.model.problems]
        told.seeds.append(first + len(told.seeds))
    return told
