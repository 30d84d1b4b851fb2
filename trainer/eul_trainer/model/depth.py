"""Which transformer blocks get an unlearning layer: `all`, a range such as `20-29`, or `top-10`."""

from __future__ import annotations

import re

from eul_serve.errors import InputError

ALL = "all"
FORMS = "all, FIRST-LAST (from 0) or top-N"
_RANGE = re.compile(r"(\d{1,4})-(\d{1,4})")
_TOP = re.compile(r"top-([1-9]\d{0,3})")


def well_formed(blocks: str) -> bool:
    """Return whether a choice of blocks is written as it should be."""
    if found := _RANGE.fullmatch(blocks):
        return int(found[1]) <= int(found[2])
    return blocks == ALL or _TOP.fullmatch(blocks) is not None


def chosen_blocks(blocks: str, count: int) -> range:
    """Return the blocks that are meant.

    Args:
        blocks: The choice, well formed.
        count: Blocks of the model.

    Returns:
        Their numbers, from 0.

    Raises:
        InputError: The model has no such block.
    """
    if blocks == ALL:
        return range(count)
    if found := _TOP.fullmatch(blocks):
        first, last = count - int(found[1]), count - 1
    else:
        first, last = (int(part) for part in blocks.split("-"))
    if not 0 <= first <= last < count:
        raise InputError(f"--blocks: expected {FORMS}, within the model's blocks 0 to {count - 1}, found {blocks!r}")
    return range(first, last + 1)
