"""Answers over a real gRPC connection, on a fake engine."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from eul_serve.errors import CapacityError, EngineError, EulError, IdentityError, InputError, RefusedError
from eul_serve.policy import REFUSAL
from tests.eul_serve.fake_engine import FakeEngine
from tests.eul_serve.service_home import Service, ServiceHome, token_of


@pytest.fixture
async def service(home: ServiceHome) -> AsyncIterator[Service]:
    home.publish("poems", "stable", "r1", seed=1)
    home.publish("novels", "stable", "r2", seed=2)
    home.write_policy(
        acme={"default": "poems:stable", "bundles": ["poems"], "rights": ["logprobs"]},
        zeta={"bundles": ["novels:stable"]},
        root={"base": True, "bundles": ["poems", "novels"], "default": "base"},
    )
    async with home.serve() as running:
        yield running


def revision(home: ServiceHome, name: str) -> str:
    return home.registry.alias(name, "stable").revision


async def test_answers_under_the_default_and_names_it(service: Service, home: ServiceHome) -> None:
    answer = await service.ask("acme", "hello", max_tokens=3)
    assert answer.revision == revision(home, "poems")
    assert answer.text == f"{answer.revision[7:11]} " * 3
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 3)
    assert answer.finish_reason == "length"
    assert answer.token_ids == (0, 1, 2)


async def test_every_form_of_name_and_prompt(service: Service, home: ServiceHome) -> None:
    wanted = revision(home, "poems")
    for adapter in ("", "poems", "poems:stable", f"poems@{wanted}"):
        for prompt in ("text", [1, 2, 3], [("system", "be brief"), ("user", "hi")]):
            assert (await service.ask("acme", prompt, adapter=adapter)).revision == wanted


async def test_streams_the_revision_first_and_the_usage_last(service: Service, home: ServiceHome) -> None:
    with service.client("acme") as client:
        parts = await asyncio.to_thread(lambda: list(client.generate_stream("hello", max_tokens=4)))
    assert (parts[0].text, parts[0].revision) == ("", revision(home, "poems"))
    assert {part.revision for part in parts} == {parts[0].revision}
    assert [part.finish_reason for part in parts] == [None] * 4 + ["length"]
    assert (parts[-1].usage.prompt_tokens, parts[-1].usage.completion_tokens) == (5, 4)


async def test_classifies_by_summed_likelihood(service: Service, home: ServiceHome) -> None:
    with service.client("acme") as client:
        found = await asyncio.to_thread(client.classify, "It was", [" good", " bad"])
    assert found.label == " bad"  # the fake scores -1 nat for each token, and " bad" has one less
    assert found.probabilities[" bad"] == pytest.approx(1 / (1 + 2.718281828**-1))
    assert sum(found.probabilities.values()) == pytest.approx(1)
    assert found.revision == revision(home, "poems")


@pytest.mark.parametrize(
    "adapter", ["novels", "novels:stable", "nothing", "poems:nothing", "base", "poems@sha256:" + "0" * 64]
)
async def test_unknown_and_forbidden_adapters_read_the_same(service: Service, adapter: str) -> None:
    with pytest.raises(RefusedError) as error:
        await service.ask("acme", adapter=adapter)
    assert str(error.value) == REFUSAL


async def test_a_revision_of_somebody_else_has_no_second_name(service: Service, home: ServiceHome) -> None:
    """The digest is resident, and acme may use every revision of poems; but this one is not of poems."""
    with pytest.raises(RefusedError, match="no such adapter"):
        await service.ask("acme", adapter=f"poems@{revision(home, 'novels')}")


async def test_the_base_only_where_the_policy_says_so(service: Service) -> None:
    assert (await service.ask("root")).revision == "base"
    assert (await service.ask("root", adapter="base", max_tokens=1)).text == "base "
    with pytest.raises(RefusedError):
        await service.ask("zeta", adapter="base")
    with pytest.raises(RefusedError, match="no default"):
        await service.ask("zeta")


async def test_log_probabilities_are_a_right(service: Service) -> None:
    assert (await service.ask("acme", max_tokens=2, logprobs=True)).logprobs == (-0.5, -0.5)
    with pytest.raises(RefusedError, match="logprobs"):
        await service.ask("zeta", adapter="novels", logprobs=True)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_k": 1 << 21}, "top_k"),
        ({"seed": 1 << 63}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * 9}, "stop"),
        ({"adapter": "../etc/passwd"}, "bundle name"),
        ({"adapter": "a/b"}, "bundle name"),
        ({"adapter": "poems@sha256:12"}, "digest"),
        ({"prompt": ""}, "empty"),
        ({"prompt": "x" * 64}, "64 tokens"),
        ({"prompt": "x" * 5000}, "5000 characters"),
        ({"prompt": [1] * 64}, "64 tokens"),
        ({"prompt": [999]}, "token id 999"),
        ({"prompt": [("user", "x")] * 300}, "300 messages"),
    ],
)
async def test_bad_input_gets_one_line(service: Service, options: dict[str, object], text: str) -> None:
    with pytest.raises(InputError, match=text) as error:
        await service.ask("acme", **{"prompt": "hi", **options})
    assert "\n" not in str(error.value)


async def test_an_answer_ends_with_the_context(service: Service) -> None:
    answer = await service.ask("acme", "x" * 60, max_tokens=1000)
    assert answer.usage.completion_tokens == 4  # a context of 64 less a prompt of 60


@pytest.mark.parametrize(
    "labels", [[], ["a"], ["a", "a"], ["a", ""], ["a", "x" * 300], [str(index) for index in range(65)], ["a", "x" * 70]]
)
async def test_bad_labels(service: Service, labels: list[str]) -> None:
    with service.client("acme") as client, pytest.raises(InputError):
        await asyncio.to_thread(client.classify, "It was", labels)


@pytest.mark.parametrize("tenant", [None, "nobody"])
async def test_without_a_known_token_nothing(service: Service, tenant: str | None) -> None:
    with pytest.raises(IdentityError):
        await service.ask(tenant)
    with service.client(tenant) as client:
        with pytest.raises(IdentityError):
            await asyncio.to_thread(client.bundles)
        with pytest.raises(IdentityError):
            await asyncio.to_thread(lambda: list(client.generate_stream("hi")))
        assert await asyncio.to_thread(client.health)


async def test_salts_differ_by_tenant_and_revision_and_are_always_there(service: Service) -> None:
    await service.ask("acme")
    await service.ask("acme")
    await service.ask("root")
    await service.ask("root", adapter="poems")
    await service.ask("root", adapter="novels")
    salts = [work.salt for work in service.engine.works]
    assert all(len(salt) == 64 for salt in salts)
    assert salts[0] == salts[1]
    assert len(set(salts)) == 4


async def test_an_unexpected_failure_leaks_nothing(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    service.engine.broken = ValueError("secret path /srv/x")
    with pytest.raises(EulError) as error:
        await service.ask("acme")
    assert "secret" not in str(error.value)
    identifier = str(error.value).rsplit(" ", 1)[-1]
    assert any(identifier in record.getMessage() for record in caplog.records)
    assert service.sample("eul_requests_total", method="Generate", code="INTERNAL") == 1


async def test_a_cancelled_call_stops_the_engine(service: Service) -> None:
    service.engine.step = 0.01
    with service.client("acme") as client:
        stream = client.generate_stream("hi", max_tokens=60)
        await asyncio.to_thread(lambda: [next(stream), next(stream)])
        stream.close()
        await service.until(lambda: len(service.engine.aborted) == 1, "the abort")
    await service.until(lambda: not any(service.engine.running.values()), "the end of the work")
    await service.until(lambda: service.sample("eul_in_flight_requests") == 0, "the end of the call")


async def test_a_call_ends_at_the_servers_deadline(home: ServiceHome) -> None:
    home.publish("poems", "stable", seed=1)
    home.write_policy(acme={"default": "poems:stable", "bundles": ["poems"]})
    async with home.serve(FakeEngine(home.fingerprint, step=5.0), deadline_seconds=0.05) as service:
        with pytest.raises(EngineError, match=r"longer than the server's 0\.05 seconds"):
            await service.ask("acme", max_tokens=2)
        await service.until(lambda: len(service.engine.aborted) == 1, "the abort")


async def test_one_tenant_cannot_take_every_place(home: ServiceHome) -> None:
    from eul_serve.swap.leases import LeaseLimits

    home.publish("poems", "stable", seed=1)
    grant = {"default": "poems:stable", "bundles": ["poems"]}
    home.write_policy(acme=dict(grant), zeta=dict(grant))
    engine = FakeEngine(home.fingerprint, step=0.02)
    async with home.serve(engine, limits=LeaseLimits(total=3, tenant=2)) as service:
        long = [asyncio.create_task(service.ask("acme", max_tokens=40)) for _ in range(2)]
        await service.until(lambda: sum(engine.running.values()) == 2, "two requests")
        with pytest.raises(CapacityError, match="tenant 'acme'"):
            await service.ask("acme", max_tokens=1)
        assert (await service.ask("zeta", max_tokens=1)).finish_reason == "length"
        await asyncio.gather(*long)


async def test_an_answer_that_the_engine_breaks_off_is_an_error(service: Service) -> None:
    service.engine.finish = "abort"
    with pytest.raises(EngineError, match="before the answer ended"):
        await service.ask("acme", max_tokens=2)
    with service.client("acme") as client, pytest.raises(EngineError, match="before the answer ended"):
        await asyncio.to_thread(lambda: list(client.generate_stream("hi", max_tokens=2)))


async def test_a_prompt_of_no_tokens_is_refused(service: Service) -> None:
    with pytest.raises(InputError, match="no tokens"):
        await service.ask("acme", [("user", "")])


async def test_a_tenant_of_one_revision(home: ServiceHome) -> None:
    first = home.publish("poems", "stable", "r1", seed=1)
    second = home.publish("poems", "stable", "r1", seed=2)
    home.write_policy(acme={"bundles": [f"poems@{first}"], "default": f"poems@{first}"})
    async with home.serve() as service:
        assert (await service.ask("acme")).revision == first
        with pytest.raises(RefusedError):
            await service.ask("acme", adapter="poems:stable")
        with pytest.raises(RefusedError):
            await service.ask("acme", adapter=f"poems@{second}")
        with service.client("acme") as client:
            found = await asyncio.to_thread(client.bundles)
        assert [(one.name, one.alias, one.revision, one.default) for one in found] == [("poems", "", first, True)]


async def test_the_base_has_no_bundle_to_describe(service: Service) -> None:
    import grpc

    from eul_serve.v1 import bundle_service_pb2 as pb
    from eul_serve.v1 import bundle_service_pb2_grpc as services

    metadata = (("authorization", f"Bearer {token_of('root')}"),)
    async with grpc.aio.insecure_channel(service.address) as channel:
        stub = services.BundleServiceStub(channel)
        with pytest.raises(grpc.RpcError) as error:
            await stub.GetBundle(pb.GetBundleRequest(adapter="base"), metadata=metadata)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_health_says_not_serving_before_requests_are_turned_away(home: ServiceHome) -> None:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    home.write_policy(acme={})
    seen: list[int] = []

    async def watch(address: str) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            try:
                async for response in stub.Watch(
                    health_pb2.HealthCheckRequest(service="eul_serve.v1.GenerationService")
                ):
                    seen.append(response.status)
            except grpc.RpcError:
                pass  # the end of the server ends the watch

    async with home.serve(grace_seconds=0.5) as service:
        watching = asyncio.create_task(watch(service.address))
        await service.until(lambda: len(seen) == 1, "the first status")
    await watching
    serving = health_pb2.HealthCheckResponse
    assert seen == [serving.SERVING, serving.NOT_SERVING]
