"""The systems that answer the same load in turns, and a round of one of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from loading.driving import Send, drive
from loading.load import carry_out
from loading.outcome import Outcome, figures
from loading.plan import Plan
from loading.processes import processor_seconds

Carry = Callable[[Plan], Awaitable[tuple[list[Outcome], float]]]
"""Carries a plan out; returns its outcomes and the client's processor seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One way to the same answers."""

    carry: Carry
    """Carries out a plan that is made for it."""
    pid: int
    """Process that stands in front of the engine."""
    target: Mapping[str, Any]
    """What of a plan is its own: kind, address and callers."""


def served(kind: str, address: str, callers: Mapping[str, str], pid: int) -> System:
    """Return a server that a client in a process of its own asks."""
    return System(carry=carry_out, pid=pid, target={"kind": kind, "address": address, "callers": dict(callers)})


def called(send: Send, callers: Mapping[str, str]) -> System:
    """Return an engine of this process that is called with nothing between; the driver is in this process too."""

    async def carry(plan: Plan) -> tuple[list[Outcome], float]:
        outcomes: list[Outcome] = []
        await drive(plan, send, outcomes.append, asyncio.Event())
        return outcomes, 0.0

    return System(carry=carry, pid=os.getpid(), target={"address": "", "callers": dict(callers)})


async def play(system: System, load: Plan) -> dict[str, Any]:
    """Let a system answer a load.

    Args:
        system: The system.
        load: What all systems are asked.

    Returns:
        The figures of the round, the processor's milliseconds that front end and client took for a token, and why the
        first requests failed, where some did.
    """
    before = processor_seconds(system.pid)
    outcomes, client = await system.carry(replace(load, **system.target))
    front = processor_seconds(system.pid) - before
    made = max(1, sum(one.tokens for one in outcomes if not one.error))
    return {
        **figures(outcomes),
        "front_end_ms_per_token": 1000 * front / made,
        "client_ms_per_token": 1000 * client / made,
        "errors": [one.error for one in outcomes if one.error][:3],
    }


def share_cores(apart: bool, cores: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the cores of the engines' threads, and those of everything else.

    Args:
        apart: Whether they are different ones, where there is more than one.
        cores: All that there are.

    Returns:
        Both.
    """
    if not apart or len(cores) < 2:
        return list(cores), list(cores)
    half = len(cores) // 2
    return list(cores[:half]), list(cores[half:])
