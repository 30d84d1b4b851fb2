"""What a client is to send, and to whom: JSON on its way to the client's process."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from loading.arrivals import Arrival, arrivals

TOKENS = (5, 250)
"""Prompts are made of these: every vocabulary has them, the fake engine's bytes too, and none is a special token of the
tiny model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The load of one client."""

    kind: Literal["grpc", "http"] = "grpc"
    """Our service, or the OpenAI API."""
    address: str
    """`HOST:PORT` of the server."""
    callers: dict[str, str]
    """By tenant, the busiest first: its token (grpc), or the name of its model (http)."""
    rate: float | None
    """Requests a second; None sends all at once."""
    count: int | None
    """How many requests; None goes on until the client is told to end."""
    prompt: int
    """Tokens of every prompt."""
    answer: int
    """Most tokens of every answer."""
    seed: int = 0
    """Seed of times, tenants and prompts."""
    exponent: float = 1.0
    """That of Zipf's law over the tenants."""
    same_prompt: bool = False
    """Whether all requests have one prompt; else each has its own, so that no cache answers for it."""
    never: tuple[int, ...] = ()
    """Tokens that may not be chosen: those that would end an answer early."""
    probe: str = ""
    """Tenant that asks for one token again and again beside the load; nobody where it is empty."""
    probe_seconds: float = 0.05
    """Seconds between two probes."""

    def arrivals(self) -> Iterator[Arrival]:
        """Return the arrivals."""
        found = arrivals(list(self.callers), self.rate, self.seed, self.exponent)
        return itertools.islice(found, self.count)

    def prompt_of(self, number: int) -> tuple[int, ...]:
        """Return the prompt of a request."""
        return draw_prompt(self.seed, 0 if self.same_prompt else number, self.prompt)

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Plan:
        """Read the line."""
        found = json.loads(line)
        return cls(**{**found, "never": tuple(found["never"])})


def draw_prompt(seed: int, number: int, tokens: int) -> tuple[int, ...]:
    """Return random tokens; the same numbers give the same ones in every process."""
    generator = random.Random(f"{seed}-{number}")
    return tuple(generator.randrange(*TOKENS) for _ in range(tokens))
