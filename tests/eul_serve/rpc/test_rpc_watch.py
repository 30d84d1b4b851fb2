"""What a tenant sees of itself and of its bundles, as they change; and never of others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from eul_serve.client import AsyncClient, BundleAlias
from eul_serve.errors import CapacityError, EngineError, IdentityError
from tests.eul_serve.fake_engine import FakeEngine
from tests.eul_serve.service_home import Service, ServiceHome, token_of


@pytest.fixture
async def service(home: ServiceHome) -> AsyncIterator[Service]:
    home.publish("poems", "stable", "r1", seed=1)
    home.publish("novels", "stable", "r2", seed=2)
    home.write_policy(
        acme={
            "default": "poems",
            "bundles": ["poems"],
            "rights": ["logprobs"],
            "tokens_per_minute": 5000,
            "concurrent_requests": 3,
        },
        zeta={"bundles": ["novels:stable"], "priority": 4},
    )
    async with home.serve(FakeEngine(home.fingerprint, step=0.01)) as running:
        yield running


def client(service: Service, tenant: str) -> AsyncClient:
    return AsyncClient(service.address, token_of(tenant))


async def until(parts: AsyncIterator[list[BundleAlias]], revision: str) -> list[BundleAlias]:
    """The list in which an alias is at a revision."""
    async with asyncio.timeout(10):
        async for bundles in parts:
            if revision in {bundle.revision for bundle in bundles}:
                return bundles
    raise AssertionError("the watch ended")


async def test_a_tenant_is_told_of_itself(service: Service) -> None:
    async with client(service, "acme") as acme, client(service, "zeta") as zeta:
        running = asyncio.create_task(acme.generate("hi", max_tokens=50))
        await service.until(lambda: sum(service.engine.running.values()) == 1, "the request")
        own, other = await acme.tenant(), await zeta.tenant()
        await running
    assert (own.name, own.default, own.bundles, own.base) == ("acme", "poems:stable", ("poems",), False)
    assert (own.rights, own.tokens_per_minute, own.requests_per_minute) == (("logprobs",), 5000, None)
    assert (own.concurrent_requests, own.priority, own.in_flight) == (3, 1, 1)
    assert (other.name, other.default, other.in_flight, other.priority, other.concurrent_requests) == (
        "zeta",
        "",
        0,
        4,
        128,
    )


async def test_a_watch_tells_of_each_swap_and_of_no_other_tenant(service: Service, home: ServiceHome) -> None:
    async with client(service, "acme") as acme, client(service, "zeta") as zeta:
        mine, others = acme.watch_bundles(), zeta.watch_bundles()
        assert await anext(mine) == await acme.bundles()
        first = await anext(others)
        new = home.publish("poems", "stable", "r1", "r3", seed=3)
        (bundle,) = await until(mine, new)
        assert (bundle.name, bundle.alias, bundle.default) == ("poems", "stable", True)
        assert {one.name for one in first} == {"novels"}
        with pytest.raises(TimeoutError):  # nothing of zeta's has changed
            async with asyncio.timeout(0.3):
                await anext(others)


async def test_a_watch_follows_the_policy_and_ends_with_the_right(service: Service, home: ServiceHome) -> None:
    async with client(service, "zeta") as zeta:
        lists = zeta.watch_bundles()
        assert [one.name for one in await anext(lists)] == ["novels"]
        home.write_policy(zeta={"bundles": ["novels:stable", "poems:stable"]})
        async with asyncio.timeout(10):
            assert [one.name for one in await anext(lists)] == ["novels", "poems"]
        home.write_policy(zeta={"bundles": [], "tokens": []})
        with pytest.raises(IdentityError):
            await until(lists, "no revision is ever this")


async def test_watchers_have_a_limit_and_leave_nothing(service: Service) -> None:
    async with client(service, "acme") as acme:
        watches = [acme.watch_bundles() for _ in range(24)]
        for one in watches:
            await anext(one)
        with pytest.raises(CapacityError, match="24 callers watch already"):
            await anext(acme.watch_bundles())
        for one in watches:
            await one.aclose()
        async with asyncio.timeout(10):
            while True:
                try:
                    await anext(acme.watch_bundles())
                    break
                except CapacityError:
                    await asyncio.sleep(0.02)


async def test_who_only_watches_holds_no_server_up(home: ServiceHome) -> None:
    home.publish("poems", "stable", "r1", seed=1)
    home.write_policy(acme={"default": "poems", "bundles": ["poems"]})
    async with home.serve(grace_seconds=20.0) as service:
        watcher = client(service, "acme")
        lists = watcher.watch_bundles()
        await anext(lists)
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 5
    with pytest.raises(EngineError, match="this server stops"):
        await anext(lists)
    await watcher.close()
