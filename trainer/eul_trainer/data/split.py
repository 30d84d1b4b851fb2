"""Which groups are drawn, by seed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

from eul_serve.errors import InputError
from eul_trainer.data.dataset import seeded

Item = TypeVar("Item")


def draw(items: Sequence[Item], counts: Mapping[str, int], seed: int, what: str) -> dict[str, list[Item]]:
    """Deal items out to named sets, each item to at most one; a set keeps the order of `items`.

    Args:
        items: What is dealt out.
        counts: Number of items by set.
        seed: Seed.
        what: Word for the items, for the message.

    Returns:
        The items by set; those that no set drew are under `rest`.

    Raises:
        InputError: There are too few.
    """
    needed = sum(counts.values())
    if needed > len(items) or min(counts.values(), default=0) < 0:
        parts = ", ".join(f"{count} for {name}" for name, count in counts.items())
        raise InputError(f"{what}: expected at least {needed} ({parts}), found {len(items)}; ask for fewer")
    order = list(range(len(items)))
    random.Random(seeded(seed, what)).shuffle(order)  # noqa: S311  # reproducible, no secret
    found = {}
    for name, count in counts.items():
        taken, order = sorted(order[:count]), order[count:]
        found[name] = [items[index] for index in taken]
    return {**found, "rest": [items[index] for index in sorted(order)]}


def smallest_cover(groups: Mapping[str, Sequence[int]], needed: int, seed: int) -> list[str]:
    """Choose whole groups that together hold a number of rows: as few as possible, then as few rows as possible.

    The largest group is taken again and again; the last one is the smallest that is enough. For groups without a
    row in common no smaller number of groups is enough. The seed decides between groups of one size.

    Args:
        groups: Row numbers by group.
        needed: Rows to reach.
        seed: Seed.

    Returns:
        The chosen groups, in the order of the choice; all groups where they do not reach it.
    """
    names = sorted(groups)
    random.Random(seeded(seed, "cover")).shuffle(names)  # noqa: S311  # reproducible, no secret
    covered: set[int] = set()
    chosen: list[str] = []
    while len(covered) < needed and names:
        gains = {name: len(covered.union(groups[name])) - len(covered) for name in names}
        enough = [name for name in names if gains[name] >= needed - len(covered)]
        best = min(enough, key=gains.__getitem__) if enough else max(names, key=gains.__getitem__)
        names.remove(best)
        chosen.append(best)
        covered.update(groups[best])
    return chosen
