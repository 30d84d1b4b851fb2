"""What goes wrong around a server: each fault has its promised outcome, nothing is lost, no other tenant is hurt."""

from __future__ import annotations

import ast
import asyncio
import errno
import os
import resource
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from eul_serve.client import Client, Retries, Settings
from eul_serve.errors import EngineError, IdentityError
from eul_serve.registry import open_registry
from eul_serve.registry.local import LocalRegistry
from tests.eul_serve.fake_engine import FakeEngine
from tests.eul_serve.service_home import ServiceHome, token_of

ACME = {"default": "poems", "bundles": ["poems"]}
ZETA = {"default": "novels", "bundles": ["novels"]}


def two_tenants(home: ServiceHome) -> None:
    home.publish("poems", "stable", "r1", seed=1)
    home.publish("novels", "stable", "r9", seed=9)
    home.write_policy(acme=dict(ACME), zeta=dict(ZETA))


async def test_an_engine_that_dies_in_the_middle_of_answers(home: ServiceHome) -> None:
    two_tenants(home)
    engine = FakeEngine(home.fingerprint, step=0.02)
    async with home.serve(engine) as service:
        answers = [asyncio.create_task(service.ask(name, max_tokens=60)) for name in ("acme", "zeta")]
        await service.until(lambda: sum(engine.running.values()) == 2, "both requests")
        engine.finish, engine.broken = "abort", EngineError("the engine died")
        began = time.monotonic()
        with pytest.raises(EngineError, match="the engine died"):
            await asyncio.wait_for(asyncio.shield(service.server.failed), 5)
        assert time.monotonic() - began < 1.0  # noticed within a second
        with pytest.raises(EngineError):  # UNAVAILABLE, never half an answer taken for a whole one
            await service.ask("acme")
        for answer in answers:
            with pytest.raises(EngineError):
                await answer


async def test_a_registry_that_is_slow_delays_nobody_but_its_own_swap(
    home: ServiceHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_tenants(home)
    let_go, real = threading.Event(), LocalRegistry.fetch

    def slow(self: LocalRegistry, *arguments: Any, **options: Any) -> None:
        let_go.wait(30)
        real(self, *arguments, **options)

    async with home.serve() as service:
        old = (await service.ask("acme", max_tokens=1)).revision
        monkeypatch.setattr(LocalRegistry, "fetch", slow)
        new = home.publish("poems", "stable", "r1", "r2", seed=2)
        await service.until(lambda: service.server.residency.entry(new) is not None, "the pull")
        for tenant in ("acme", "zeta"):  # everybody is served meanwhile, from what there is
            assert (await service.ask(tenant, max_tokens=1)).revision
        assert (await service.ask("acme", max_tokens=1)).revision == old
        home.write_policy(acme={**ACME, "tokens": []}, zeta=dict(ZETA))  # and a right goes in time
        await service.until(lambda: service.sample("eul_policy_loads_total", outcome="loaded") == 1, "the policy")
        with pytest.raises(IdentityError):
            await service.ask("acme")
        home.write_policy(acme=dict(ACME), zeta=dict(ZETA))
        await service.until(lambda: service.sample("eul_policy_loads_total", outcome="loaded") == 2, "the policy")
        let_go.set()
        await service.until(lambda: service.sample("eul_swaps_total", outcome="done") == 3, "the swap")
        assert (await service.ask("acme", max_tokens=1)).revision == new


async def test_a_full_disk_leaves_the_old_revision_and_no_half_of_the_new(
    home: ServiceHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_tenants(home)
    async with home.serve() as service:
        old = (await service.ask("acme", max_tokens=1)).revision
        real = os.rename

        def full(source: Any, target: Any, **options: Any) -> None:
            if str(home.cache) in str(target):
                raise OSError(errno.ENOSPC, "No space left on device")
            real(source, target, **options)

        monkeypatch.setattr(os, "rename", full)
        new = home.publish("poems", "stable", "r1", "r2", seed=2)
        await service.until(
            lambda: service.sample("eul_verification_failures_total", reason="no_room") >= 1, "the failure"
        )
        for tenant in ("acme", "zeta"):
            await service.ask(tenant, max_tokens=1)
        assert (await service.ask("acme", max_tokens=1)).revision == old
        assert not list((home.cache / "tmp").iterdir())
        monkeypatch.undo()
        await service.until(lambda: service.sample("eul_swaps_total", outcome="done") == 3, "the swap")
        assert (await service.ask("acme", max_tokens=1)).revision == new


def test_a_clock_that_jumps_moves_no_quota_no_wait_and_no_swap() -> None:
    """All of them go by monotonic time: what has a date of its own, a token or a signer, is judged in other rooms."""
    import eul_serve

    rooms = ("engine", "metrics", "policy", "rpc", "serve", "swap", "traffic")
    sources = [path for room in rooms for path in (Path(eul_serve.__file__).parent / room).rglob("*.py")]
    assert len(sources) > 80
    calls = [
        f"{path.name}:{node.lineno}"
        for path in sources
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("time.time", "datetime.now", "datetime.utcnow")
    ]
    assert calls == []


def test_a_termination_in_the_middle_of_a_swap(home: ServiceHome, start_fake: Any) -> None:
    home.publish("poems", "stable", "r1", seed=1)
    home.write_policy(acme=dict(ACME))
    with start_fake(load_seconds=0.5) as process:
        new = home.publish("poems", "stable", "r1", "r2", seed=2)
        time.sleep(0.2)  # its load has begun
        assert process.stop(signal.SIGTERM) == 0
    with start_fake() as process, Client(process.listen, token_of("acme")) as client:
        assert client.generate("hi", max_tokens=1).revision == new
        assert process.stop() == 0
    assert not list((home.cache / "tmp").iterdir())
    assert open_registry(str(home.root / "registry")).alias("poems", "stable").revision == new


def test_a_server_without_file_descriptors_comes_back(home: ServiceHome, start_fake: Any) -> None:
    home.publish("poems", "stable", "r1", seed=1)
    home.write_policy(acme=dict(ACME))
    once = Settings(retries=Retries(attempts=1), timeout_seconds=20)
    with start_fake() as process, Client(process.listen, token_of("acme"), settings=once) as client:
        revision = client.generate("hi", max_tokens=1).revision
        used = len(os.listdir(f"/proc/{process.popen.pid}/fd"))
        _, hard = resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE, (used + 8, hard))
        host, port = process.listen.split(":")
        held = []
        for _ in range(40):  # more than it has left
            connection = socket.socket()
            connection.settimeout(1)
            connection.connect((host, int(port)))
            held.append(connection)
        time.sleep(0.3)
        assert client.generate("hi", max_tokens=1).revision == revision  # who is connected is served
        new = home.publish("poems", "stable", "r1", "r2", seed=2)  # which it may not be able to read now
        for connection in held:
            connection.close()
        end = time.monotonic() + 30
        while client.generate("hi", max_tokens=1).revision != new:
            assert time.monotonic() < end, "the server did not come back within 30 seconds"
            time.sleep(0.05)
        with Client(process.listen, token_of("acme"), settings=once) as another:
            assert another.generate("hi", max_tokens=1).revision == new
        assert process.stop() == 0
