"""The parts of one server, each made once and given what it needs."""

from __future__ import annotations

from dataclasses import dataclass

from eul_serve.engine.base import Engine
from eul_serve.metrics import Metrics
from eul_serve.registry import Cache, Registry, open_registry
from eul_serve.rpc.calls import Calls
from eul_serve.rpc.overview import Overview
from eul_serve.rpc.runner import Runner, Traffic
from eul_serve.rpc.salt import Salter
from eul_serve.serve.key import server_key
from eul_serve.serve.settings import ServeSettings
from eul_serve.swap.arrival import Store
from eul_serve.swap.enforcer import Enforcer
from eul_serve.swap.fallback import Fallback
from eul_serve.swap.feed import Feed
from eul_serve.swap.follower import Follower
from eul_serve.swap.leases import Leases
from eul_serve.swap.lookout import Lookout
from eul_serve.swap.memory import Memory
from eul_serve.swap.mover import Mover
from eul_serve.swap.orders import KnownOrders
from eul_serve.swap.pins import Pins
from eul_serve.swap.policy_source import PolicySource
from eul_serve.swap.residency import Residency
from eul_serve.swap.trust import Trust
from eul_serve.traffic import Line, LineLimits, Quotas


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a server is made of; nothing runs yet."""

    registry: Registry
    """Where revisions come from."""
    leases: Leases
    """Requests in flight."""
    residency: Residency
    """Revisions in the engine."""
    follower: Follower
    """Follows registry and policy."""
    pins: Pins
    """Slots that stay."""
    feed: Feed
    """Told of everything."""
    calls: Calls
    """The edge of every call."""
    runner: Runner
    """Admits requests and runs them."""
    overview: Overview
    """Tells what there is."""

    async def close(self) -> None:
        """Wait for what is under way, and end the threads."""
        await self.follower.close()
        await self.pins.close()
        await self.residency.close()


def assemble(settings: ServeSettings, engine: Engine, policies: PolicySource, metrics: Metrics) -> Parts:
    """Make the parts.

    Args:
        settings: The server's settings.
        engine: A started engine.
        policies: The policy in force.
        metrics: The server's metrics.

    Returns:
        The parts.

    Raises:
        InputError: A setting is not acceptable.
    """
    salter = Salter(server_key(settings.key_file))
    registry, leases, feed = open_registry(settings.registry), Leases(settings.limits), Feed()
    cache = Cache(settings.cache, settings.cache_bytes)
    orders = KnownOrders(settings.cache, settings.registry)
    trust = Trust(registry, policies, orders)
    store = Store(
        registry=registry, cache=cache, fingerprint=engine.info.fingerprint, metrics=metrics, trusted=trust.check
    )
    residency = Residency(engine, store, orders, metrics, feed, settings.canaries)
    fallback = Fallback(policies, registry, residency, Memory(settings.cache, settings.registry))
    mover = Mover(policies, residency, fallback, orders, metrics, feed)
    enforcer = Enforcer(orders, trust, residency, leases, cache, feed)
    follower = Follower(policies, Lookout(registry), residency, leases, metrics, feed, mover, orders, enforcer)
    line = Line(LineLimits(running=engine.info.batch, seconds=settings.queue_seconds))
    traffic, pins = Traffic(leases=leases, quotas=Quotas(), line=line), Pins(engine, residency, feed)
    return Parts(
        registry=registry,
        leases=leases,
        residency=residency,
        follower=follower,
        pins=pins,
        feed=feed,
        calls=Calls(metrics, settings.deadline_seconds, salter.tag),
        runner=Runner(engine, follower.finder, residency, traffic, salter, metrics),
        overview=Overview(engine=engine, policies=policies, residency=residency, leases=leases, line=line, pins=pins),
    )
