"""When requests come, and whose they are: an open loop, which waits for no answer.

A client that sends its next request when the last one is answered sends less whenever the server is slow, and so never
measures how long others would have waited (coordinated omission). Here every request has a time at which it is to be
sent, drawn beforehand, and latencies count from that time, however late the client itself came to send it.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request that is to be sent."""

    number: int
    """Its number, from 0."""
    at: float
    """When, in seconds after the beginning."""
    tenant: str
    """Whose it is."""


def zipf(count: int, exponent: float = 1.0) -> list[float]:
    """Return the shares of some tenants by Zipf's law, the busiest first.

    Args:
        count: Tenants, 1 or more.
        exponent: How unequal they are; 0 makes all of them equal.

    Returns:
        A share for each; they sum to 1.
    """
    weights = [rank**-exponent for rank in range(1, count + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]


def arrivals(tenants: Sequence[str], rate: float | None, seed: int, exponent: float = 1.0) -> Iterator[Arrival]:
    """Yield arrivals without end; the same arguments give the same ones.

    Args:
        tenants: Who asks, the busiest first.
        rate: Requests a second of all of them, as a Poisson process; None lets all come at the beginning.
        seed: Seed of the times and tenants.
        exponent: That of Zipf's law.

    Yields:
        The arrivals, in the order of their times.
    """
    generator, shares, at = random.Random(seed), zipf(len(tenants), exponent), 0.0
    for number in itertools.count():
        if rate is not None:
            at += generator.expovariate(rate)
        (tenant,) = generator.choices(tenants, shares)
        yield Arrival(number=number, at=at, tenant=tenant)
