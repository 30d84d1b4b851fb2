"""Leases: whose cancellation is whose, and what a new policy leaves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from eul_serve.errors import CapacityError, EngineError, IdentityError, RefusedError
from eul_serve.format import Reference
from eul_serve.identity import Caller, Credentials
from eul_serve.identity.proofs import TokenProof
from eul_serve.policy import Grant, Policy, TenantPolicy, hash_token
from eul_serve.swap.feed import Feed
from eul_serve.swap.leases import LeaseLimits, Leases
from eul_serve.swap.residency import Residency
from tests.eul_serve.fake_engine import FakeEngine

POEMS = Reference.parse("poems")


def policy_of(*tenants: TenantPolicy, tokens: dict[str, str]) -> Policy:
    hashed = {hash_token(token): name for token, name in tokens.items()}
    return Policy(tenants={tenant.name: tenant for tenant in tenants}, tokens=hashed, epoch="e")


ACME = TenantPolicy(name="acme", bundles=(Grant("poems"),))
ZETA = TenantPolicy(name="zeta", bundles=(Grant("poems"),))
CALLER = Caller(tenant=ACME, epoch="e", proofs=(TokenProof("t"),))


async def hold(leases: Leases, reference: Reference | None = POEMS) -> None:
    with leases.hold(CALLER, reference, frozenset()):
        await asyncio.sleep(60)


async def test_a_cancellation_from_outside_stays_one() -> None:
    leases = Leases(LeaseLimits())
    task = asyncio.create_task(hold(leases))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(leases) == 0


@pytest.mark.parametrize(
    ("policy", "kind"),
    [
        (policy_of(ACME, tokens={}), IdentityError),
        (policy_of(ACME, ZETA, tokens={"t": "zeta"}), IdentityError),
        (policy_of(TenantPolicy(name="acme"), tokens={"t": "acme"}), RefusedError),
    ],
)
async def test_a_policy_that_takes_something_away_ends_the_lease(policy: Policy, kind: type[Exception]) -> None:
    leases = Leases(LeaseLimits())
    task = asyncio.create_task(hold(leases))
    await asyncio.sleep(0)
    leases.recheck(policy)
    leases.recheck(policy)  # a second poll before the task has ended changes nothing
    with pytest.raises(kind):
        await task
    assert len(leases) == 0


async def test_a_policy_that_grants_the_same_leaves_the_lease() -> None:
    leases = Leases(LeaseLimits())
    task = asyncio.create_task(hold(leases))
    await asyncio.sleep(0)
    leases.recheck(policy_of(ACME, tokens={"t": "acme"}))
    await asyncio.sleep(0)
    assert not task.done()
    task.cancel()


async def test_the_servers_limit() -> None:
    leases = Leases(LeaseLimits(total=1, tenant=1))
    with leases.hold(CALLER, None, frozenset()), pytest.raises(CapacityError, match="this server"):
        await hold(leases)


def test_a_caller_does_not_show_its_token() -> None:
    assert "secret" not in repr(Caller(tenant=ACME, epoch="e", proofs=(TokenProof("secret"),)))
    assert "secret" not in repr(TokenProof("secret"))
    assert "secret" not in repr(Credentials(token="secret"))


async def test_a_revision_that_is_not_there_admits_nobody(tmp_path: Path) -> None:
    from prometheus_client import CollectorRegistry

    from eul_serve.metrics import Metrics
    from eul_serve.registry import Cache, open_registry
    from eul_serve.swap.arrival import Store
    from eul_serve.swap.entry import Entry
    from eul_serve.swap.orders import KnownOrders

    metrics = Metrics(CollectorRegistry())
    engine = FakeEngine("sha256:" + "0" * 64)
    store = Store(
        registry=open_registry("nowhere"),
        cache=Cache(None),
        fingerprint="",
        metrics=metrics,
        trusted=lambda name, revision: None,
    )
    residency = Residency(engine, store, KnownOrders(tmp_path, "nowhere"), metrics, Feed())
    entry = Entry(name="poems", revision="sha256:" + "1" * 64)
    with pytest.raises(EngineError, match="it is announced"), residency.admit(entry):
        pass
    await residency.close()
