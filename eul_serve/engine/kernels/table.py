"""Which kernel is the fastest for which shape: measured when an engine starts, and looked up once per step."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

from eul_serve.engine.kernels.apart import apart
from eul_serve.engine.kernels.batched import batched
from eul_serve.engine.kernels.group import Group, Kernel
from eul_serve.engine.kernels.stacked import stacked

KERNELS: dict[str, Kernel] = {"apart": apart, "batched": batched, "stacked": stacked}
"""Kernels for groups of slots, by name."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides how fast a kernel is."""

    count: int
    """Slots in the group."""
    each: int
    """Rows of every slot."""
    rank: int
    """Units of every slot."""
    neighbours: bool
    """Whether the slots' weights lie one behind the other."""

    def __str__(self) -> str:
        kind = "neighbours" if self.neighbours else "scattered"
        return f"{self.count} {kind} x {self.each} rows, rank {self.rank}"


class KernelTable:
    """The kernel of every measured shape; shapes between take that of the nearest by factor."""

    def __init__(self, fastest: Mapping[Shape, str]) -> None:
        """Take the measurements.

        Args:
            fastest: Name of the kernel by shape, over a full grid; none at all leaves the usual choice.
        """
        self.fastest = dict(fastest)
        self._axes = tuple(
            sorted({getattr(shape, axis) for shape in self.fastest}) for axis in ("count", "each", "rank")
        )

    def choose(self, group: Group) -> Kernel:
        """Return the kernel for a group.

        Args:
            group: Slots and rows.

        Returns:
            The fastest kernel that was measured near its shape.
        """
        if group.count == 1:
            return apart
        found = Shape(group.count, group.each, group.rank, group.neighbours)
        return KERNELS[self.fastest.get(self._nearest(found)) or usual(found)]

    def _nearest(self, shape: Shape) -> Shape:
        count, each, rank = (
            nearest(axis, value) for axis, value in zip(self._axes, (shape.count, shape.each, shape.rank), strict=True)
        )
        return Shape(count, each, rank, shape.neighbours)


def usual(shape: Shape) -> str:
    """Return the kernel to use where nothing was measured, and where no other is clearly faster.

    Args:
        shape: Of a group.

    Returns:
        Name of the kernel.
    """
    # Gathering scattered weights costs three times reading them; long prompts make products large enough by themselves.
    return "batched" if shape.each < 64 and (shape.neighbours or shape.rank < 64) else "apart"


def nearest(axis: list[int], value: int) -> int:
    """Return the entry of a sorted axis that is nearest to a value by factor.

    Args:
        axis: What was measured, ascending.
        value: What is asked for, 1 or more.

    Returns:
        The entry; the value itself on an empty axis.
    """
    if not axis:
        return value
    at = bisect_left(axis, value)
    low, high = axis[max(0, at - 1)], axis[min(at, len(axis) - 1)]
    return low if value * value <= low * high else high
