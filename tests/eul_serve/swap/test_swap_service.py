"""Hot swap seen from outside: promotions, rollbacks, revocations and failures under load, on a fake engine."""

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from eul_serve.errors import BundleMismatchError, CapacityError, EngineError, EulError, IdentityError, RefusedError
from eul_serve.registry.local import LocalRegistry
from eul_serve.swap.room import STAY_SECONDS
from tests.eul_serve.fake_engine import FakeEngine
from tests.eul_serve.registry_files import alias_files, move_by_hand
from tests.eul_serve.service_home import Service, ServiceHome, token_of

ACME = {"default": "poems:stable", "bundles": ["poems"]}


class Load:
    """Requests that never pause, until told to stop."""

    def __init__(self, service: Service, tenant: str = "acme", workers: int = 3) -> None:
        self._service, self._tenant, self._workers = service, tenant, workers
        self._stop = False
        self.revisions: list[str] = []
        self.failures: list[Exception] = []

    async def __aenter__(self) -> "Load":
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(self._workers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def _ask(self) -> None:
        while not self._stop:
            try:
                answer = await self._service.ask(self._tenant, max_tokens=5)
            except EulError as error:
                self.failures.append(error)
            else:
                self.revisions.append(answer.revision)
                assert answer.text == f"{answer.revision[7:11]} " * 5, "an answer changed its revision midway"

    async def until_seen(self, revision: str) -> None:
        await self._service.until(lambda: self.revisions[-1:] == [revision], f"an answer of {revision}")


def first_and_second(home: ServiceHome) -> tuple[str, str]:
    first = home.publish("poems", "stable", "r1", seed=1)
    second = home.publish("poems", None, "r1", "r2", seed=2)
    home.write_policy(acme=dict(ACME))
    return first, second


async def test_a_promotion_and_a_rollback_under_load_fail_nobody(home: ServiceHome) -> None:
    first, _ = first_and_second(home)
    same = home.publish("poems", None, "r1", seed=3)
    async with home.serve(FakeEngine(home.fingerprint, step=0.005)) as service, Load(service) as load:
        await load.until_seen(first)
        home.registry.promote("poems", same, "stable")
        await load.until_seen(same)
        await service.until(lambda: len(service.engine.loaded) == 1, "the old revision to leave")
        home.registry.rollback("poems", "stable")
        seen = len(load.revisions)
        await service.until(lambda: first in load.revisions[seen:], "the first revision again")
        assert load.failures == []
        assert len(service.engine.ids) == len(set(service.engine.ids)) == 3  # the third load has an id of its own
    assert service.sample("eul_swaps_total", outcome="done") == 3
    for stage in ("pull", "verify", "load", "activate", "drain"):
        assert service.sample("eul_swap_duration_seconds_count", stage=stage) >= 1, stage
    for stage in ("verify", "cast", "slot"):
        assert service.sample("eul_load_duration_seconds_count", stage=stage) == 3, stage


async def test_the_old_revision_stays_for_as_long_as_somebody_runs_on_it(home: ServiceHome) -> None:
    first, second = first_and_second(home)
    async with home.serve(FakeEngine(home.fingerprint, step=0.05)) as service:
        old = asyncio.create_task(service.ask("acme", max_tokens=40))
        await service.until(lambda: sum(service.engine.running.values()) == 1, "the first request")
        home.registry.promote("poems", second, "stable")
        assert (await service.ask("acme", max_tokens=1)).revision == first
        await service.until(lambda: len(service.engine.loaded) == 2, "the second revision")
        await service.until(lambda: service.server.residency.entry(second) is not None, "its entry")
        entry = service.server.residency.entry(first)
        await service.until(lambda: entry is not None and entry.state.stage.value == "draining", "the drain")
        assert (await service.ask("acme", max_tokens=1)).revision == second
        assert (await old).revision == first
        await service.until(lambda: len(service.engine.loaded) == 1, "the end of the drain")
        assert service.server.residency.entry(first) is None
        assert service.sample("eul_revisions", stage="active") == 1


async def test_a_rollback_during_the_drain_loads_nothing(home: ServiceHome) -> None:
    first, _ = first_and_second(home)
    same = home.publish("poems", None, "r1", seed=3)
    async with home.serve(FakeEngine(home.fingerprint, step=0.05)) as service:
        old = asyncio.create_task(service.ask("acme", max_tokens=40))
        await service.until(lambda: sum(service.engine.running.values()) == 1, "the first request")
        for target in (same, first):
            home.registry.promote("poems", target, "stable")
            await service.until(lambda target=target: target in _pointed(service), "the move")
        assert (await service.ask("acme", max_tokens=1)).revision == first
        assert len(service.engine.ids) == 2
        await old


def _pointed(service: Service) -> set[str]:
    known = (service.server.residency.entry(bundle.revision) for bundle in service.engine.loaded.values())
    return {entry.revision for entry in known if entry is not None and entry.pointers}


async def test_a_move_that_unforgets_is_refused_without_a_reason(home: ServiceHome, monkeypatch: Any) -> None:
    """Something other than our registry wrote the alias: the server checks for itself."""
    home.publish("poems", "stable", "r1", "r2", seed=1)
    less = home.publish("poems", None, "r1", seed=2)
    home.write_policy(acme=dict(ACME))
    async with home.serve() as service:
        before = (await service.ask("acme")).revision
        move_by_hand(home.root / "registry", "poems", "stable", less)
        await service.until(lambda: service.sample("eul_swaps_total", outcome="unforget") >= 1, "the refusal")
        assert (await service.ask("acme")).revision == before
        move_by_hand(home.root / "registry", "poems", "stable", less, "court order 12")
        await service.until(lambda: service.sample("eul_swaps_total", outcome="done") >= 2, "the move")
        assert (await service.ask("acme")).revision == less


async def test_a_corrupt_revision_is_never_served_and_the_old_one_stays(home: ServiceHome) -> None:
    first, second = first_and_second(home)
    home.publish("novels", "stable", "r9", seed=9)
    home.write_policy(acme=dict(ACME), zeta={"default": "novels:stable", "bundles": ["novels"]})
    manifest = home.registry.manifest("poems", second)
    blob = home.root / "registry" / "blobs" / "sha256" / manifest.files["adapter_model.safetensors"].sha256[7:]
    whole = blob.read_bytes()
    blob.chmod(0o600)
    blob.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    async with home.serve() as service, Load(service, "zeta") as load:
        home.registry.promote("poems", second, "stable")
        await service.until(lambda: service.sample("eul_verification_failures_total", reason="corrupt") >= 1, "failure")
        assert (await service.ask("acme")).revision == first
        with pytest.raises(EngineError, match="did not pass verification"):
            await service.ask("acme", adapter=f"poems@{second}")
        assert not list((home.cache / "tmp").iterdir())
        blob.write_bytes(whole)
        await service.until(lambda: second in _pointed(service), "the second try")
        assert (await service.ask("acme")).revision == second
    assert load.failures == []


async def test_a_bundle_of_another_base_is_refused_and_harms_nobody(home: ServiceHome) -> None:
    home.publish("poems", "stable", seed=1)
    other = home.publish("other", "stable", seed=2, base="sha256:" + "e" * 64)
    home.write_policy(acme={**ACME, "bundles": ["poems", "other"]})
    async with home.serve() as service:
        with pytest.raises(BundleMismatchError, match="made for base model"):
            await service.ask("acme", adapter="other")
        with pytest.raises(BundleMismatchError):
            await service.ask("acme", adapter=f"other@{other}")
        assert (await service.ask("acme")).finish_reason == "length"
        assert service.sample("eul_verification_failures_total", reason="other_base") >= 1


async def test_a_worker_that_refuses_leaves_the_old_revision(home: ServiceHome) -> None:
    first, second = first_and_second(home)
    async with home.serve() as service:
        service.engine.refused.add(second)
        home.registry.promote("poems", second, "stable")
        await service.until(lambda: service.sample("eul_verification_failures_total", reason="corrupt") >= 1, "refusal")
        assert (await service.ask("acme")).revision == first
        service.engine.refused.clear()
        await service.until(lambda: second in _pointed(service), "the second try")


async def test_revisions_on_demand_make_room_and_never_push_out_an_alias(home: ServiceHome) -> None:
    home.publish("poems", "stable", "r1", seed=1)
    others = [home.publish("poems", None, "r1", seed=seed) for seed in (2, 3, 4)]
    home.write_policy(acme=dict(ACME))
    engine = FakeEngine(home.fingerprint, capacity=2, step=0.05)
    async with home.serve(engine) as service:
        for revision in others:
            assert (await service.ask("acme", adapter=f"poems@{revision}", max_tokens=1)).revision == revision
        assert len(engine.loaded) == 2


async def test_a_revision_whose_place_is_in_use_waits_for_it_and_is_not_starved(home: ServiceHome) -> None:
    """One place besides the alias, and traffic on it that never pauses: after its stay the next one gets the place."""
    home.publish("poems", "stable", "r1", seed=1)
    first, second = (home.publish("poems", None, "r1", seed=seed) for seed in (2, 3))
    home.write_policy(acme=dict(ACME))
    engine = FakeEngine(home.fingerprint, capacity=2, step=0.02)
    async with home.serve(engine) as service:
        asked: list[asyncio.Task[Any]] = []

        async def traffic() -> None:
            while True:  # each lasts for 0.8 seconds, so that there is no moment without one
                asked.append(asyncio.create_task(service.ask("acme", adapter=f"poems@{first}", max_tokens=40)))
                await asyncio.sleep(0.3)

        busy = asyncio.create_task(traffic())
        await service.until(lambda: sum(engine.running.values()) == 2, "the traffic")
        begin = time.monotonic()
        waiting = asyncio.create_task(service.ask("acme", adapter=f"poems@{second}", max_tokens=1))
        assert (await service.ask("acme", max_tokens=1)).finish_reason == "length"  # the alias is hurt by nobody
        assert (await waiting).revision == second
        assert STAY_SECONDS / 2 < time.monotonic() - begin < 5 * STAY_SECONDS
        busy.cancel()
        assert {answer.revision for answer in await asyncio.gather(*asked)} == {first}
    assert engine.violations == []


async def test_who_gives_up_waiting_for_a_place_leaves_it_to_others(home: ServiceHome) -> None:
    home.publish("poems", "stable", "r1", seed=1)
    first, second = (home.publish("poems", None, "r1", seed=seed) for seed in (2, 3))
    home.write_policy(acme=dict(ACME))
    engine = FakeEngine(home.fingerprint, capacity=2, step=0.05)
    async with home.serve(engine) as service:
        busy = asyncio.create_task(service.ask("acme", adapter=f"poems@{first}", max_tokens=20))
        await service.until(lambda: sum(engine.running.values()) == 1, "the request")
        waiting = asyncio.create_task(service.ask("acme", adapter=f"poems@{second}", max_tokens=1))
        await asyncio.sleep(0.1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert (await busy).revision == first
        assert (await service.ask("acme", adapter=f"poems@{second}", max_tokens=1)).revision == second
    assert engine.violations == []


async def test_places_that_aliases_hold_are_refused_at_once(home: ServiceHome) -> None:
    for seed, name in enumerate(("poems", "prose")):
        home.publish(name, "stable", "r1", seed=seed)
    third = home.publish("poems", None, "r1", seed=3)
    home.write_policy(acme={**ACME, "bundles": ["poems", "prose"]})
    async with home.serve(FakeEngine(home.fingerprint, capacity=2)) as service:
        await service.ask("acme", adapter="prose")
        await service.until(lambda: len(_pointed(service)) == 2, "both aliases")
        with pytest.raises(CapacityError, match="all 2 places of the engine are held by aliases"):
            await service.ask("acme", adapter=f"poems@{third}", max_tokens=1)


async def test_many_at_once_load_a_revision_once(home: ServiceHome) -> None:
    _, second = first_and_second(home)
    async with home.serve(FakeEngine(home.fingerprint, load_step=0.1)) as service:
        answers = await asyncio.gather(*(service.ask("acme", adapter=f"poems@{second}") for _ in range(6)))
        assert {answer.revision for answer in answers} == {second}
        assert len(service.engine.ids) == 2


async def test_an_alias_named_by_a_request_is_followed(home: ServiceHome) -> None:
    first, second = first_and_second(home)
    home.registry.promote("poems", first, "canary")
    async with home.serve() as service:
        assert (await service.ask("acme", adapter="poems:canary")).revision == first
        home.registry.promote("poems", second, "canary")
        await service.until(lambda: second in _pointed(service), "the move of canary")
        assert (await service.ask("acme", adapter="poems:canary")).revision == second
        assert (await service.ask("acme", adapter="poems:stable")).revision == first


async def test_a_damaged_alias_stops_no_other_of_its_name(home: ServiceHome) -> None:
    first, second = first_and_second(home)
    home.registry.promote("poems", first, "next")
    (damaged,) = alias_files(home.root / "registry", "poems", "next")
    whole = damaged.read_text()
    async with home.serve() as service:
        damaged.write_text("{")
        home.registry.promote("poems", second, "stable")
        await service.until(lambda: second in _pointed(service), "the move of stable")
        assert (await service.ask("acme")).revision == second
        with pytest.raises(EngineError, match="poems:next did not pass verification"):
            await service.ask("acme", adapter="poems:next")
        with service.client("acme") as client:
            listed = await asyncio.to_thread(client.bundles)
        assert [(one.alias, one.revision) for one in listed] == [("next", ""), ("stable", second)]
        damaged.write_text(whole)
        assert (await service.ask("acme", adapter="poems:next")).revision == first


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({**ACME, "tokens": []}, IdentityError),
        ({**ACME, "tokens": ["another token"]}, IdentityError),
        ({"default": "novels:stable", "bundles": ["novels"]}, RefusedError),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_revoked_right_stops_requests_in_flight(
    home: ServiceHome, changed: dict[str, Any], kind: type[EulError], stream: bool
) -> None:
    home.publish("poems", "stable", seed=1)
    home.publish("novels", "stable", seed=2)
    home.write_policy(acme=dict(ACME), zeta=dict(ACME))
    async with home.serve(FakeEngine(home.fingerprint, step=0.05, max_context=1000)) as service:

        def run() -> None:
            with service.client("acme") as client:
                if stream:
                    list(client.generate_stream("hi", max_tokens=900))
                else:
                    client.generate("hi", max_tokens=900)

        running = asyncio.create_task(asyncio.to_thread(run))
        other = asyncio.create_task(service.ask("zeta", max_tokens=20))
        await service.until(lambda: sum(service.engine.running.values()) == 2, "both requests")
        home.write_policy(acme=dict(changed), zeta=dict(ACME))
        with pytest.raises(kind):
            await running
        assert len(service.engine.aborted) == 1
        assert (await other).finish_reason == "length"


async def test_the_base_and_logprobs_are_revoked_too(home: ServiceHome) -> None:
    home.publish("poems", "stable", seed=1)
    home.write_policy(acme={**ACME, "rights": ["logprobs"]}, root={"base": True, "default": "base"})
    async with home.serve(FakeEngine(home.fingerprint, step=0.05, max_context=1000)) as service:
        tasks = [
            asyncio.create_task(service.ask("acme", max_tokens=900, logprobs=True)),
            asyncio.create_task(service.ask("root", max_tokens=900)),
        ]
        await service.until(lambda: sum(service.engine.running.values()) == 2, "both requests")
        home.write_policy(acme=dict(ACME), root={"bundles": ["poems"]})
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [RefusedError, RefusedError]


async def test_a_broken_policy_changes_nothing(home: ServiceHome) -> None:
    first_and_second(home)
    async with home.serve() as service:
        home.policy.write_text("[tenants.acme\n")
        await service.until(lambda: service.sample("eul_policy_loads_total", outcome="refused") == 1, "the refusal")
        assert (await service.ask("acme")).finish_reason == "length"
        home.policy.unlink()
        await service.until(lambda: service.sample("eul_policy_loads_total", outcome="refused") == 2, "the second one")
        assert (await service.ask("acme")).finish_reason == "length"


async def test_a_new_tenant_and_a_new_bundle_need_no_restart(home: ServiceHome) -> None:
    first_and_second(home)
    async with home.serve() as service:
        home.publish("novels", "stable", seed=7)
        home.write_policy(acme=dict(ACME), zeta={"default": "novels:stable", "bundles": ["novels"]})
        await service.until(lambda: service.sample("eul_policy_loads_total", outcome="loaded") == 1, "the policy")
        assert (await service.ask("zeta")).finish_reason == "length"
        home.write_policy(acme=dict(ACME))
        await service.until(lambda: len(service.engine.loaded) == 1, "novels to leave")


async def test_a_registry_that_is_gone_stops_nothing(home: ServiceHome) -> None:
    first, _ = first_and_second(home)
    async with home.serve() as service:
        away = Path(shutil.move(home.root / "registry", home.root / "away"))
        await asyncio.sleep(0.1)
        assert (await service.ask("acme")).revision == first
        shutil.move(away, home.root / "registry")


async def test_a_server_starts_with_what_is_there_and_denies_the_rest(home: ServiceHome) -> None:
    home.write_policy(acme=dict(ACME))
    async with home.serve() as service:
        with pytest.raises(RefusedError, match="no such adapter"):
            await service.ask("acme")
        first = home.publish("poems", "stable", seed=1)
        assert (await service.ask("acme")).revision == first


async def test_two_servers_share_a_cache(home: ServiceHome) -> None:
    _, second = first_and_second(home)
    async with home.serve() as one, home.serve() as two:
        home.registry.promote("poems", second, "stable")
        for service in (one, two):
            await service.until(lambda service=service: second in _pointed(service), "the move")
            assert (await service.ask("acme")).revision == second
    assert isinstance(home.registry, LocalRegistry)
    assert token_of("acme") not in one.exposition()
