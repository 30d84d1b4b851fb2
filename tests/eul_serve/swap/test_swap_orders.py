"""Bans and deletions seen from outside: within one poll nobody is served by what a person took away."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import grpc
import pytest

from eul_serve.audit import AuditLog, read_chain
from eul_serve.errors import BannedError, EngineError, RefusedError
from eul_serve.policy import REFUSAL
from eul_serve.registry.orders import Standing
from eul_serve.swap.leases import WITHDRAWN
from eul_serve.swap.orders import KnownOrders
from eul_serve.v1 import bundle_service_pb2 as pb
from eul_serve.v1 import bundle_service_pb2_grpc as services
from tests.eul_serve.fake_engine import FakeEngine
from tests.eul_serve.service_home import Service, ServiceHome, token_of

ACME = {"default": "poems:stable", "bundles": ["poems"]}
STABLE = "poems:stable"
METADATA = [("authorization", f"Bearer {token_of('acme')}")]
CALM = 60.0


async def look(service: Service) -> None:
    """One poll, and what it starts."""
    await service.server.follower.poll_registry()
    await service.server.follower.settle()


async def revision(service: Service, adapter: str = "") -> str:
    return str((await service.ask("acme", adapter=adapter, max_tokens=1)).revision)


def cached(home: ServiceHome) -> set[str]:
    return {f"sha256:{path.name}" for path in (home.cache / "sha256").iterdir()}


@pytest.mark.parametrize("act", ["ban", "delete"])
async def test_what_is_ordered_away_serves_nobody_after_one_poll(home: ServiceHome, act: Any) -> None:
    first = home.publish("poems", "stable", "r1", seed=1)
    home.write_policy(acme={**ACME, "base": True})
    with AuditLog(home.root / "audit.jsonl") as audit:
        async with home.serve(FakeEngine(home.fingerprint), audit, poll_seconds=CALM) as service:
            assert await revision(service) == first
            home.registry.order(act, first, "ticket 4711", "ann")
            await look(service)
            with pytest.raises(EngineError, match="poems:stable is not served now"):
                await revision(service)
            with pytest.raises(RefusedError) as caught:
                await revision(service, f"poems@{first}")
            assert str(caught.value) == REFUSAL
            await service.until(lambda: not service.engine.loaded, "the engine to be empty")
            await service.until(lambda: (first in cached(home)) == (act == "ban"), "the cache")
            assert service.sample("eul_swaps_total", outcome="banned") >= 1
            assert service.sample("eul_revisions", stage="active") == 0
            assert service.sample("eul_registry_polls_total", outcome="failed") == 0
            told = [entry for entry in read_chain(home.root / "audit.jsonl") if entry.act in ("withdraw", "purge")]
    assert dict(told[0].facts) == {
        "reference": STABLE, "revision": first, "reason": act, "stopped": 0, "why": "ticket 4711",
    }  # fmt: skip
    assert [(one.act, one.facts["revision"]) for one in told[1:]] == ([("purge", first)] if act == "delete" else [])


@pytest.mark.parametrize("adapter", ["alias", "digest"])
async def test_requests_in_flight_on_it_are_stopped_and_others_are_not(home: ServiceHome, adapter: str) -> None:
    first = home.publish("poems", "stable", "r1", seed=1)
    second = home.publish("novels", "stable", "r1", seed=2)
    home.write_policy(acme=dict(ACME), zeta={"default": "novels:stable", "bundles": ["novels"]})
    engine = FakeEngine(home.fingerprint, step=0.05, max_context=1000)
    async with home.serve(engine) as service:
        asked = "" if adapter == "alias" else f"poems@{first}"
        stopped = asyncio.create_task(service.ask("acme", adapter=asked, max_tokens=900))
        other = asyncio.create_task(service.ask("zeta", max_tokens=20))
        await service.until(lambda: sum(engine.running.values()) == 2, "both requests")
        home.registry.order("ban", first, "ticket 4711")
        with pytest.raises(RefusedError) as caught:
            await stopped
        assert str(caught.value) == WITHDRAWN
        assert (await other).revision == second
        await service.until(lambda: len(engine.loaded) == 1, "it to leave")
        assert len(engine.aborted) == 1


async def test_a_lifted_ban_serves_again(home: ServiceHome) -> None:
    first = home.publish("poems", "stable", "r1", seed=1)
    home.write_policy(acme=dict(ACME))
    async with home.serve(poll_seconds=CALM) as service:
        home.registry.order("ban", first, "a suspicion")
        await look(service)
        with pytest.raises(EngineError):
            await revision(service)
        home.registry.order("lift", first, "it was unfounded")
        await look(service)
        assert await revision(service) == first
        assert await revision(service, f"poems@{first}") == first


async def test_nothing_un_forgets_in_the_gap(home: ServiceHome) -> None:
    """A banned revision's alias goes back to what covers less only where a person says why."""
    first = home.publish("poems", "stable", "r1", seed=1)
    second = home.publish("poems", "stable", "r1", "r2", seed=2)
    home.write_policy(acme=dict(ACME))
    async with home.serve(poll_seconds=CALM) as service:
        assert await revision(service) == second
        home.registry.order("ban", second, "a suspicion")
        await look(service)
        with pytest.raises(RefusedError, match="does not cover"):
            home.registry.rollback("poems", "stable")
    async with home.serve(poll_seconds=CALM) as service:  # a restart remembers it too
        with pytest.raises(EngineError):
            await revision(service)
        home.registry.rollback("poems", "stable", allow_unforget="the request was withdrawn")
        await look(service)
        assert await revision(service) == first


async def test_what_served_an_alias_goes_when_it_moves_to_something_banned(home: ServiceHome) -> None:
    home.publish("poems", "stable", "r1", seed=1)
    home.write_policy(acme=dict(ACME))
    async with home.serve(poll_seconds=CALM) as service:
        second = home.publish("poems", "stable", "r1", "r2", seed=2)
        home.registry.order("ban", second, "a suspicion")
        await look(service)
        with pytest.raises(EngineError):
            await revision(service)
        await service.until(lambda: not service.engine.loaded, "the engine to be empty")


async def test_previous_does_not_let_a_banned_revision_stand_in(home: ServiceHome) -> None:
    first = home.publish("poems", "stable", "r1", seed=1)
    second = home.publish("poems", "stable", "r1", seed=2)
    home.sections["canaries"] = {"on_failure": "previous"}
    home.write_policy(acme=dict(ACME))
    async with home.serve(poll_seconds=CALM) as service:
        home.registry.order("ban", second, "a suspicion")
        await look(service)
        with pytest.raises(EngineError):  # a ban is no failed canary: nothing stands in before a person says so
            await revision(service)
        home.registry.promote("poems", first, "stable")
        await look(service)
        assert await revision(service) == first


async def test_a_revision_that_is_banned_on_its_way_in_never_serves(home: ServiceHome) -> None:
    first = home.publish("poems", "stable", "r1", seed=1)
    home.write_policy(acme=dict(ACME))
    engine = FakeEngine(home.fingerprint, load_step=0.2)
    async with home.serve(engine, poll_seconds=CALM) as service:
        home.registry.order("ban", first, "before")
        await look(service)
        home.registry.order("lift", first, "after")
        waiting = asyncio.create_task(look(service))
        await service.until(
            lambda: (entry := service.server.residency.entry(first)) is not None and entry.state.arrives
        )
        home.registry.order("delete", first, "for good")
        await service.server.follower.poll_registry()
        await waiting
        with pytest.raises(EngineError):
            await revision(service)
        await service.until(lambda: not engine.loaded, "it to leave")
        await service.until(lambda: first not in cached(home), "the cache")
        assert engine.works == []


async def test_describing_a_banned_revision_is_refused_like_an_unknown_one(home: ServiceHome) -> None:
    first = home.publish("poems", "stable", "r1", seed=1)
    home.write_policy(acme=dict(ACME))
    async with home.serve(poll_seconds=CALM) as service:
        home.registry.order("ban", first, "ticket 4711")
        await look(service)
        async with grpc.aio.insecure_channel(service.address) as channel:
            stub = services.BundleServiceStub(channel)
            for adapter in (f"poems@{first}", "poems@sha256:" + "0" * 64, "poems:stable"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.GetBundle(pb.GetBundleRequest(adapter=adapter), metadata=METADATA)
                assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.PERMISSION_DENIED, REFUSAL)


async def test_a_registry_that_is_gone_keeps_the_orders_also_over_a_restart(
    home: ServiceHome, caplog: pytest.LogCaptureFixture
) -> None:
    first = home.publish("poems", "stable", "r1", seed=1)
    home.write_policy(acme=dict(ACME))
    root = home.root / "registry"
    async with home.serve(poll_seconds=CALM) as service:
        home.registry.order("ban", first, "ticket 4711")
        await look(service)
        shutil.move(root / "orders", home.root / "orders")
        (root / "orders").mkdir()
        (root / "orders" / "0000000001.json").write_text("{")
        await look(service)
        with pytest.raises(EngineError):
            await revision(service)
    # The rest of the registry can be read; what is ordered in it cannot.
    async with home.serve(poll_seconds=CALM) as service:
        with pytest.raises(RefusedError):
            await revision(service, f"poems@{first}")
        assert service.sample("eul_registry_polls_total", outcome="failed") >= 1
        assert caplog.text.count("what was read before stays in force") == 1
        shutil.rmtree(root / "orders")
        shutil.move(home.root / "orders", root / "orders")
        home.registry.order("lift", first, "it was unfounded")
        await look(service)
        assert await revision(service) == first


async def test_where_nobody_ever_read_the_orders_nothing_is_taken_up(home: ServiceHome) -> None:
    first = home.publish("poems", "stable", "r1", seed=1)
    home.write_policy(acme=dict(ACME))
    orders = home.root / "registry" / "orders"
    orders.mkdir()
    (orders / "0000000001.json").write_text("{")
    async with home.serve(poll_seconds=CALM) as service:
        for adapter in ("", f"poems@{first}"):
            with pytest.raises(EngineError, match="before the registry's orders were read once"):
                await revision(service, adapter)
        assert service.engine.loaded == {}
        (orders / "0000000001.json").unlink()
        await look(service)
        assert await revision(service) == first


async def test_what_was_deleted_while_a_server_was_down_leaves_its_disk(home: ServiceHome) -> None:
    first = home.publish("poems", "stable", "r1", seed=1)
    home.write_policy(acme=dict(ACME))
    async with home.serve(poll_seconds=CALM):
        assert cached(home) == {first}
    home.registry.order("delete", first, "ticket 4711")
    async with home.serve(poll_seconds=CALM) as service:
        await service.until(lambda: cached(home) == set(), "the cache")


async def test_a_deletion_that_the_disk_refuses_is_tried_again(
    home: ServiceHome, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = home.publish("poems", "stable", "r1", seed=1)
    home.write_policy(acme=dict(ACME))
    async with home.serve(poll_seconds=CALM) as service:
        with monkeypatch.context() as broken:
            broken.setattr("os.rename", _refuse)
            home.registry.order("delete", first, "ticket 4711")
            await look(service)
            await service.until(lambda: "deleted, and still in the cache" in caplog.text, "the complaint")
        await look(service)
        await service.until(lambda: cached(home) == set(), "the cache")


def _refuse(*_: Any, **__: Any) -> None:
    raise PermissionError(13, "Permission denied")


def test_known_orders_are_one_registrys_and_survive(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    digest = "sha256:" + "1" * 64
    known = KnownOrders(tmp_path, "one")
    with pytest.raises(EngineError, match="read once"):
        known.check("poems", digest)
    known.put(_banned(digest))
    assert KnownOrders(tmp_path, "two").standing is None
    again = KnownOrders(tmp_path, "one")
    assert not again.read
    with pytest.raises(BannedError, match="ticket 4711"):
        again.check("poems", digest)
    again.check("poems", "sha256:" + "2" * 64)
    (file,) = tmp_path.iterdir()
    whole = json.loads(file.read_text())
    bad = [{**whole, "orders": [{**whole["orders"][0], key: 5}]} for key in ("digest", "act", "reason", "at")]
    with caplog.at_level(logging.CRITICAL):
        for text in ("", "[]", "{}", '{"orders": 5}', *map(json.dumps, bad)):
            file.write_text(text)
            assert KnownOrders(tmp_path, "one").standing is None, text


def _banned(digest: str) -> Standing:
    from eul_serve.registry.orders import Order

    return Standing().after(Order(act="ban", digest=digest, reason="ticket 4711", actor=None, at="2026-01-31T12:00:00"))
