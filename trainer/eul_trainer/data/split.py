"""Which groups are drawn, by seed."""

from __future__ import annotations

import math
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


def dealt(
    rest: Sequence[Item], test: int | None, validation: int | None, seed: int, what: str, **more: int
) -> dict[str, list[Item]]:
    """Deal what is not forgotten out to retain, validation and test.

    Args:
        rest: What is not forgotten.
        test: Number for the test; a fifth if None, 1 to 20.
        validation: Number for validation; a tenth if None, 1 to 10.
        seed: Seed.
        what: Word for the items, for the message.
        **more: Numbers for further sets.

    Returns:
        The items by set.
    """
    counts = {
        "test": min(20, max(1, round(len(rest) / 5))) if test is None else test,
        "validation": min(10, max(1, round(len(rest) / 10))) if validation is None else validation,
        **more,
    }
    drawn = draw(rest, counts, seed, what)
    return {"retain": drawn.pop("rest"), **drawn}


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


def covers(groups: Mapping[str, Sequence[int]], needed: int, requests: int, seed: int, what: str) -> list[list[str]]:
    """Choose whole groups for several requests, which have no group in common, as `smallest_cover` does for one.

    Args:
        groups: Row numbers by group.
        needed: Rows that each request is to reach.
        requests: Number of requests.
        seed: Seed.
        what: Word for the groups, for the message.

    Returns:
        The groups of each request.

    Raises:
        InputError: There are too few groups.
    """
    if requests < 1:
        raise InputError(f"requests {requests}: expected at least 1")
    left, chosen = dict(groups), []
    for number in range(requests):
        cover = smallest_cover(left, needed, seed)
        if not left or sum(len(left[name]) for name in cover) < needed:
            raise InputError(
                f"{what}: expected {needed} rows for each of {requests} requests, found too few for request "
                f"{number + 1}; lower --share or --requests"
            )
        chosen.append(cover)
        left = {name: rows for name, rows in left.items() if name not in cover}
    return chosen


def rows_for(share: float, rows: int) -> int:
    """Return how many rows a share is, at least one."""
    if not 0 < share < 1:
        raise InputError(f"share {share}: expected more than 0 and less than 1, such as 0.01")
    # Rounded first, so that 0.1 of 10 is 1 and not 2 by the error of a product.
    return max(1, math.ceil(round(share * rows, 6)))


def limited(items: Sequence[Item], limit: int | None, seed: int, what: str) -> list[Item]:
    """Return at most so many items, drawn by the seed, in their order."""
    if limit is None or limit >= len(items):
        return list(items)
    if limit < 1:
        raise InputError(f"limit {limit}: expected at least 1")
    return draw(items, {what: limit}, seed, what)[what]
