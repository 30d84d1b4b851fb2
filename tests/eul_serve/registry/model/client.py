"""A client of the machine, and the defences that its registry has."""

from __future__ import annotations

from dataclasses import dataclass

from eul_serve.registry.claims import Claims
from eul_serve.registry.stored import StoredRegistry
from tests.eul_serve.registry.model.answers import Act
from tests.eul_serve.registry.model.memory_store import MemoryStore
from tests.eul_serve.registry.model.turns import Running


@dataclass(slots=True, kw_only=True)
class Client:
    """One client, with one act at a time."""

    number: int
    """Its number, which no other ever has."""
    store: MemoryStore
    """Its way to the store."""
    registry: StoredRegistry
    """Its registry."""
    act: Act | None = None
    """What it does."""
    running: Running | None = None
    """How far it is."""
    sleeps: int = 0
    """How often it waited in this act."""
    jumped: bool = False
    """Whether it has hung since its last operation."""


@dataclass(frozen=True, slots=True)
class Defences:
    """What holds; each may be broken on purpose."""

    registry: type[StoredRegistry] = StoredRegistry
    """How acts are done."""
    claims: type[Claims] = Claims
    """How collectors and publishers are kept apart."""
    exclusive: bool = True
    """Whether the store makes a record once."""
