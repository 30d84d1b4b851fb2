"""Requests that come and go one after another: the loss of every set after each step, for each order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eul_serve.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A fusion or a revocation."""

    action: str
    """`fuse` or `revoke`."""
    request: str
    """Id of the request that came or went."""
    seconds: float
    """How long it took."""
    losses: Mapping[str, float]
    """Mean loss of each set after it, nats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One order of the requests."""

    requests: tuple[str, ...]
    """Ids of the requests as they came."""
    kinds: Mapping[str, str]
    """Kind of each set: forget, retain or unseen."""
    before: Mapping[str, float]
    """Mean loss of each set under the base model, nats."""
    steps: tuple[Step, ...]
    """Every step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One set over all orders."""

    set: str
    """Name of the set."""
    before: float
    """Its loss under the base model, nats."""
    fused: tuple[float, float]
    """Lowest and highest loss after the last fusion."""
    end: tuple[float, float]
    """Lowest and highest loss after the last step."""


def orders(sequence: Mapping[str, Any]) -> list[Order]:
    """Return every order of a sequence.

    Args:
        sequence: `sequence.json`.

    Returns:
        The orders that have a step.

    Raises:
        InputError: The record lacks something.
    """
    try:
        return [_order(sequence["before"], order) for order in sequence["orders"] if order["steps"]]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"sequence.json: expected what `sequence` writes, found {error!r}; measure again") from error


def _order(before: Mapping[str, Any], order: Mapping[str, Any]) -> Order:
    sets: Mapping[str, Any] = order["steps"][0]["sets"]
    return Order(
        requests=tuple(map(str, order["order"])),
        kinds={name: str(part["kind"]) for name, part in sets.items()},
        before={name: float(before[name]["loss"]) for name in sets},
        steps=tuple(
            Step(
                action=str(step["action"]),
                request=str(step["request"]),
                seconds=float(step["seconds"]),
                losses={name: float(step["sets"][name]["loss"]) for name in sets},
            )
            for step in order["steps"]
        ),
    )


def spreads(found: Sequence[Order]) -> list[Spread]:
    """Return how far the orders of one sequence lie apart.

    Args:
        found: The orders, at least one.

    Returns:
        One line for each set that all of them have.
    """
    return [
        Spread(
            set=name,
            before=found[0].before[name],
            fused=_reach([_fused(order).losses[name] for order in found]),
            end=_reach([order.steps[-1].losses[name] for order in found]),
        )
        for name in found[0].kinds
        if all(name in order.kinds for order in found)
    ]


def _fused(order: Order) -> Step:
    """Return the last fusion; the first step where there is none."""
    return next((step for step in reversed(order.steps) if step.action == "fuse"), order.steps[0])


def _reach(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)
