"""How much of the server one tenant may use."""

from __future__ import annotations

from dataclasses import dataclass

PRIORITIES = (1, 100)
"""Lowest and highest priority."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """One tenant's share; None is as much as the server gives to any tenant."""

    requests_per_minute: int | None = None
    """Requests in any minute, 1 or more."""
    tokens_per_minute: int | None = None
    """Tokens read and made in any minute, 1 or more."""
    concurrent_requests: int | None = None
    """Requests at once, waiting ones included, 1 or more."""
    priority: int = 1
    """Share of the engine while others wait too, 1 to 100: with 3, three times the tokens of a tenant with 1."""
