"""The administrators' port: who may use it, what it shows, and that nothing passes policy and registry through it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest

from eul_serve.address import Address
from eul_serve.audit import AuditLog, read_chain
from eul_serve.client import AdminClient, Client, Step
from eul_serve.errors import (
    CapacityError,
    EngineError,
    EulError,
    IdentityError,
    InputError,
    NotFoundError,
    RefusedError,
)
from eul_serve.policy import load_policy
from eul_serve.rpc.transport import TransportSettings
from tests.eul_serve.fake_engine import FakeEngine
from tests.eul_serve.registry_files import move_by_hand
from tests.eul_serve.service_home import ADMIN_TOKEN, Service, ServiceHome, token_of

_T = TypeVar("_T")


@pytest.fixture
def audit_path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
async def service(home: ServiceHome, audit_path: Path) -> AsyncIterator[Service]:
    home.publish("poems", "stable", "r1", seed=1)
    home.publish("novels", "stable", "r2", seed=2)
    home.appoint()
    home.write_policy(
        acme={"default": "poems", "bundles": ["poems"], "rights": ["logprobs"], "priority": 3},
        zeta={"bundles": ["novels"]},
    )
    admin = TransportSettings(listen=Address("127.0.0.1", 0))
    engine = FakeEngine(home.fingerprint, step=0.01)
    with AuditLog(audit_path) as audit:
        async with home.serve(engine, audit, admin=admin, poll_seconds=60.0) as running:  # nothing by itself
            yield running


async def ask(service: Service, act: Callable[[AdminClient], _T], token: str | None = ADMIN_TOKEN) -> _T:
    def run() -> _T:
        with service.admin(token) as client:
            return act(client)

    return await asyncio.to_thread(run)


def acts(path: Path) -> list[str]:
    return [entry.act for entry in read_chain(path)]


@pytest.mark.parametrize("token", [None, "x", token_of("acme")])
async def test_only_administrators(service: Service, token: str | None) -> None:
    with pytest.raises(IdentityError):
        await ask(service, AdminClient.status, token)
    with pytest.raises(IdentityError):
        await ask(service, lambda client: next(client.watch()), token)


async def test_an_administrator_is_no_tenant_and_no_port_has_the_other_s_services(service: Service) -> None:
    with Client(service.address, ADMIN_TOKEN) as client, pytest.raises(IdentityError):
        await asyncio.to_thread(client.generate, "hi")
    for address, method, token in (
        (service.address, "/eul_serve.v1.AdminService/GetStatus", token_of("acme")),
        (service.admin_address, "/eul_serve.v1.GenerationService/Generate", ADMIN_TOKEN),
    ):
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await channel.unary_unary(method)(b"", metadata=[("authorization", f"Bearer {token}")], timeout=10)
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_the_status_is_all_there_is(service: Service, home: ServiceHome) -> None:
    waiting = asyncio.create_task(service.ask("acme", max_tokens=60))
    await service.until(lambda: sum(service.engine.running.values()) == 1, "the request")
    status = await ask(service, AdminClient.status)
    assert (status.running, status.waiting, status.batch, status.draining) == (1, 0, 64, False)
    assert (status.base_fingerprint, status.slots) == (home.fingerprint, 4)
    assert status.policy_epoch == load_policy(home.policy).epoch
    found = {one.name: one for one in status.revisions}
    assert found["poems"].revision == home.registry.alias("poems", "stable").revision
    assert (found["poems"].state, list(found["poems"].references)) == (7, ["poems:stable"])
    assert (found["poems"].in_flight, found["novels"].in_flight) == (1, 0)
    assert list(found["novels"].requests) == ["r2"]
    acme, zeta = status.tenants
    assert (acme.name, acme.default_adapter, list(acme.bundles)) == ("acme", "poems:stable", ["poems"])
    assert (list(acme.rights), acme.in_flight, acme.priority, acme.base) == (["logprobs"], 1, 3, False)
    assert (zeta.name, zeta.in_flight, zeta.priority) == ("zeta", 0, 1)
    await waiting


async def test_activate_looks_now_and_returns_when_it_serves(service: Service, home: ServiceHome) -> None:
    new = home.publish("poems", "stable", "r1", "r3", seed=3)
    assert (await service.ask("acme", max_tokens=1)).revision != new  # the next poll is a minute away
    assert await ask(service, lambda client: client.activate("poems:stable")) == new
    assert (await service.ask("acme", max_tokens=1)).revision == new
    assert await ask(service, lambda client: client.activate("poems")) == new  # again is the same


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        ("secret:stable", NotFoundError),
        ("poems:other", NotFoundError),
        ("poems@sha256:" + "0" * 64, InputError),
        ("../x", InputError),
        ("", InputError),
    ],
)
async def test_what_no_tenant_may_use_is_not_brought_in(
    service: Service, home: ServiceHome, reference: str, kind: type[EulError]
) -> None:
    home.publish("secret", "stable", "r9", seed=9)
    for act in (AdminClient.activate, AdminClient.pin, AdminClient.unpin):
        with pytest.raises(kind):
            await ask(service, lambda client, act=act: act(client, reference))  # type: ignore[misc]


async def test_activate_never_un_forgets(service: Service, home: ServiceHome) -> None:
    """The alias is moved behind the registry's back; an administrator's word changes nothing about the rule."""
    less = home.publish("poems", None, "r7", seed=7)
    move_by_hand(home.root / "registry", "poems", "stable", less)
    with pytest.raises(RefusedError, match="r1"):
        await ask(service, lambda client: client.activate("poems:stable"))
    assert (await service.ask("acme", max_tokens=1)).revision != less
    # The control: with a reason it is done.
    move_by_hand(home.root / "registry", "poems", "stable", less, "court order 12")
    assert await ask(service, lambda client: client.activate("poems:stable")) == less


async def test_a_pin_follows_its_alias(service: Service, home: ServiceHome) -> None:
    old = await ask(service, lambda client: client.pin("poems:stable"))
    (first,) = service.engine.pinned
    assert service.engine.loaded[first].revision == old
    new = home.publish("poems", "stable", "r1", "r4", seed=4)
    await ask(service, lambda client: client.activate("poems:stable"))
    await service.until(
        lambda: [service.engine.loaded[one].revision for one in service.engine.pinned] == [new], "the pin"
    )
    status = await ask(service, AdminClient.status)
    assert {one.name: one.pinned for one in status.revisions if one.state == 7} == {"poems": True, "novels": False}
    await ask(service, lambda client: client.unpin("poems:stable"))
    assert service.engine.pinned == set()


async def test_no_pin_where_no_slot_would_be_left(home: ServiceHome) -> None:
    home.publish("poems", "stable", "r1", seed=1)
    home.publish("novels", "stable", "r2", seed=2)
    home.appoint()
    home.write_policy(acme={"bundles": ["poems", "novels"]})
    admin = TransportSettings(listen=Address("127.0.0.1", 0))
    async with home.serve(FakeEngine(home.fingerprint, capacity=3), admin=admin) as service:
        service.engine._info = service.engine.info.__class__(
            **{name: getattr(service.engine.info, name) for name in service.engine.info.__slots__} | {"slots": 2}
        )
        await ask(service, lambda client: client.pin("poems"))
        with pytest.raises(CapacityError, match="no slot would be left"):
            await ask(service, lambda client: client.pin("novels"))


async def test_a_drain_takes_no_new_requests_and_lets_the_old_ones_finish(service: Service) -> None:
    running = asyncio.create_task(service.ask("acme", max_tokens=30))
    await service.until(lambda: sum(service.engine.running.values()) == 1, "the request")
    assert await ask(service, lambda client: client.drain("new kernel")) == 1
    with pytest.raises(EngineError, match="drains"):
        await service.ask("acme")
    with service.client(None) as client:
        assert not await asyncio.to_thread(client.health)
        assert await asyncio.to_thread(client.health, "")
    assert (await ask(service, AdminClient.status)).draining
    assert (await running).finish_reason == "length"
    await ask(service, AdminClient.resume)
    await service.ask("acme", max_tokens=1)
    with pytest.raises(InputError, match="reason: expected 1 to 512"):
        await ask(service, lambda client: client.drain(""))


async def test_a_policy_that_is_read_now(service: Service, home: ServiceHome) -> None:
    epoch, changed = await ask(service, AdminClient.reload_policy)
    assert (epoch, changed) == (load_policy(home.policy).epoch, False)
    home.write_policy(acme={"bundles": []})
    epoch, changed = await ask(service, AdminClient.reload_policy)
    assert (epoch, changed) == (load_policy(home.policy).epoch, True)
    home.policy.write_text("[tenants.acme]\ncolour = 1\n")
    with pytest.raises(InputError, match="unknown key 'colour'"):
        await ask(service, AdminClient.reload_policy)
    assert (await ask(service, AdminClient.status)).policy_epoch == epoch


async def test_an_administrator_whose_token_is_taken_away(service: Service, home: ServiceHome) -> None:
    del home.sections["admins.ana"]
    home.write_policy(acme={"bundles": []})
    await ask(service, AdminClient.reload_policy)
    with pytest.raises(IdentityError):
        await ask(service, AdminClient.status)


async def test_a_watch_tells_every_step_of_a_swap(service: Service, home: ServiceHome) -> None:
    seen: list[Step] = []
    ready = threading.Event()

    def watch() -> None:
        with service.admin() as client:
            steps: Iterator[Step] = client.watch()
            for step in steps:
                seen.append(step)
                if len(seen) >= 2:
                    ready.set()
                if step.act == "swap":
                    break

    task = asyncio.create_task(asyncio.to_thread(watch))
    await asyncio.to_thread(ready.wait, 10)
    old = home.registry.alias("poems", "stable").revision
    new = home.publish("poems", "stable", "r1", "r5", seed=5)
    await ask(service, lambda client: client.activate("poems:stable"))
    await task
    assert {(step.reference, step.state) for step in seen[:2]} == {("poems", "active"), ("novels", "active")}
    stages = [step.state for step in seen[2:] if step.revision == new and step.act == "stage"]
    assert stages == ["announced", "pulled", "verified", "loaded", "warm", "active"][1:]
    assert (seen[-1].act, seen[-1].reference, seen[-1].detail) == ("swap", "poems:stable", old)


async def test_every_decision_is_in_the_audit_log(service: Service, home: ServiceHome, audit_path: Path) -> None:
    home.publish("poems", "stable", "r1", "r6", seed=6)
    for act in (
        lambda client: client.activate("poems:stable"),
        lambda client: client.pin("poems"),
        lambda client: client.unpin("poems"),
        lambda client: client.drain("why not"),
        AdminClient.resume,
    ):
        await ask(service, act)  # type: ignore[arg-type]
    home.write_policy(acme={"bundles": []})
    await ask(service, AdminClient.reload_policy)
    written = acts(audit_path)
    assert written == [
        "start", "swap", "swap", "activate", "swap", "pin", "unpin", "drain", "resume", "reload_policy", "policy",
    ]  # fmt: skip
    entries = {entry.act: entry.facts for entry in read_chain(audit_path)}
    assert entries["drain"] == {"by": "ana", "reason": "why not"}
    assert entries["policy"] == {"epoch": load_policy(home.policy).epoch}
    text = audit_path.read_text()
    assert ADMIN_TOKEN not in text
    assert token_of("acme") not in text


async def test_an_act_that_cannot_be_written_down_is_not_done(
    service: Service, home: ServiceHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise CapacityError("audit log: cannot write: No space left on device; free space and try again")

    monkeypatch.setattr(AuditLog, "record", full)
    with pytest.raises(CapacityError, match="No space left"):
        await ask(service, lambda client: client.drain("full"))
    await service.ask("acme", max_tokens=1)  # not drained
    # What registry and policy ask for is done even so.
    new = home.publish("poems", "stable", "r1", "r8", seed=8)
    await service.server.follower.poll_registry()
    await service.server.follower.settle()
    assert (await service.ask("acme", max_tokens=1)).revision == new
    assert service.sample("eul_audit_failures_total") == 2


async def test_without_an_address_there_is_no_such_port(home: ServiceHome) -> None:
    home.write_policy(acme={})
    async with home.serve() as service:
        assert service.server.ports.admin is None


def test_a_secret_of_two_is_refused(home: ServiceHome) -> None:
    home.appoint(token=token_of("acme"))
    home.write_policy(acme={})
    with pytest.raises(InputError, match="held by two, tenant 'acme' and administrator 'ana'"):
        load_policy(home.policy)
