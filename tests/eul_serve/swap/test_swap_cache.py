"""A server whose cache has a bound: what is in the engine stays on the disk, and what has left it makes room."""

from __future__ import annotations

from pathlib import Path

import pytest

from eul_serve.errors import CapacityError
from tests.eul_serve.fake_engine import FakeEngine
from tests.eul_serve.service_home import Service, ServiceHome

ACME = {"default": "poems:stable", "bundles": ["poems"]}


def cached(home: ServiceHome) -> set[str]:
    return {f"sha256:{path.name}" for path in (home.cache / "sha256").iterdir()}


def most_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir())


async def move(service: Service, home: ServiceHome, revision: str) -> None:
    home.registry.promote("poems", revision, "stable")
    await service.server.follower.poll_registry()
    await service.server.follower.settle()


async def test_what_left_the_engine_makes_room_and_what_is_in_it_never_does(home: ServiceHome) -> None:
    revisions = [home.publish("poems", None, "r1", seed=seed) for seed in range(4)]
    home.registry.promote("poems", revisions[0], "stable")
    home.write_policy(acme=dict(ACME))
    async with home.serve(poll_seconds=60.0):
        pass
    one = max(most_bytes(path) for path in (home.cache / "sha256").iterdir())
    engine = FakeEngine(home.fingerprint, step=0.05, max_context=1000)
    async with home.serve(engine, poll_seconds=60.0, cache_bytes=2 * one + one // 2) as service:
        for old, new in ((0, 1), (1, 2)):
            await move(service, home, revisions[new])
            await service.until(
                lambda old=old: service.server.residency.entry(revisions[old]) is None, "the old one to leave"
            )
            assert {revisions[old], revisions[new]} == cached(home)
        # Both places in the cache are taken by what is in the engine: nobody pushes them out.
        assert (await service.ask("acme", adapter=f"poems@{revisions[0]}", max_tokens=1)).revision == revisions[0]
        assert cached(home) == {revisions[0], revisions[2]}
        with pytest.raises(CapacityError, match="are in use"):
            await service.ask("acme", adapter=f"poems@{revisions[3]}", max_tokens=1)
        assert cached(home) == {revisions[0], revisions[2]}
        assert service.sample("eul_verification_failures_total", reason="no_room") >= 1


async def test_a_revision_that_failed_keeps_no_room(home: ServiceHome) -> None:
    first, second, third = (home.publish("poems", None, "r1", seed=seed) for seed in range(3))
    home.registry.promote("poems", first, "stable")
    home.write_policy(acme=dict(ACME))
    async with home.serve(poll_seconds=60.0):
        pass
    one = max(most_bytes(path) for path in (home.cache / "sha256").iterdir())
    async with home.serve(poll_seconds=60.0, cache_bytes=2 * one + one // 2) as service:
        service.engine.refused.add(second)
        await move(service, home, second)
        assert second in cached(home)
        await service.until(lambda: not service.server.residency.entry(second).kept, "its release")  # type: ignore[union-attr]
        await move(service, home, third)
        assert cached(home) == {first, third}
