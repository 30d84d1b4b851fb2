"""A generic client that knows only reflection and health: what `buf curl` or `grpcurl` would do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from eul_serve.policy import REFUSAL
from tests.eul_serve.service_home import Service, ServiceHome, token_of

SERVICE = "eul_serve.v1.GenerationService"


@pytest.fixture
async def service(home: ServiceHome) -> AsyncIterator[Service]:
    home.publish("poems", "stable", seed=1)
    home.publish("novels", "stable", "r2", seed=2)
    home.write_policy(
        acme={"default": "poems:stable", "bundles": ["poems"]},
        both={"bundles": ["poems:stable", "novels", "unpublished"]},
    )
    async with home.serve() as running:
        yield running


class GenericClient:
    """Builds messages from what reflection tells; imports nothing of ours."""

    def __init__(self, channel: grpc.Channel, token: str | None) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def reflect(self, **request: str) -> Any:
        stub = reflection_pb2_grpc.ServerReflectionStub(self._channel)
        message = reflection_pb2.ServerReflectionRequest(**request)
        return next(iter(stub.ServerReflectionInfo(iter([message]), metadata=self._metadata, timeout=10)))

    def services(self) -> list[str]:
        return [one.name for one in self.reflect(list_services="").list_services_response.service]

    def call(self, service: str, method: str, body: dict[str, Any]) -> dict[str, Any]:
        pool = descriptor_pool.DescriptorPool()
        found = self.reflect(file_containing_symbol=service).file_descriptor_response.file_descriptor_proto
        for data in found:
            pool.Add(descriptor_pb2.FileDescriptorProto.FromString(data))
        described = pool.FindServiceByName(service).methods_by_name[method]
        ask, answer = (message_factory.GetMessageClass(one) for one in (described.input_type, described.output_type))
        invoke = self._channel.unary_unary(
            f"/{service}/{method}", request_serializer=ask.SerializeToString, response_deserializer=answer.FromString
        )
        response = invoke(json_format.ParseDict(body, ask()), metadata=self._metadata, timeout=10)
        return json_format.MessageToDict(response)


def health(channel: grpc.Channel, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status


async def test_with_a_token_it_finds_and_calls_generate(service: Service) -> None:
    def run() -> tuple[list[str], dict[str, Any], dict[str, Any]]:
        with grpc.insecure_channel(service.address) as channel:
            client = GenericClient(channel, token_of("acme"))
            answer = client.call(SERVICE, "Generate", {"prompt": {"text": "hi"}, "sampling": {"maxTokens": 2}})
            return client.services(), answer, client.call("eul_serve.v1.BundleService", "ListBundles", {})

    services, answer, bundles = await asyncio.to_thread(run)
    assert {SERVICE, "eul_serve.v1.BundleService", "grpc.health.v1.Health"} <= set(services)
    assert answer["revision"].startswith("sha256:")
    assert answer["usage"] == {"promptTokens": 2, "completionTokens": 2}
    assert [one["name"] for one in bundles["bundles"]] == ["poems"]


@pytest.mark.parametrize("token", [None, "wrong", token_of("acme") + "x"])
async def test_without_a_token_it_gets_health_and_nothing_else(service: Service, token: str | None) -> None:
    def refused(call: Any) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as error:
            call()
        return error.value.code(), error.value.details()

    def run() -> list[tuple[grpc.StatusCode, str]]:
        with grpc.insecure_channel(service.address) as channel:
            assert health(channel, "") == health_pb2.HealthCheckResponse.SERVING
            assert health(channel, SERVICE) == health_pb2.HealthCheckResponse.SERVING
            client = GenericClient(channel, token)
            metadata = (("authorization", f"Bearer {token}"),) if token else ()
            found = [refused(client.services), refused(lambda: client.reflect(file_containing_symbol=SERVICE))]
            for method in ("Generate", "Classify", "GenerateStream", "Nothing"):
                call = channel.unary_unary(f"/{SERVICE}/{method}")
                found.append(refused(lambda call=call: call(b"", metadata=metadata, timeout=10)))
            stream = channel.unary_stream(f"/{SERVICE}/GenerateStream")
            found.append(refused(lambda: list(stream(b"", metadata=metadata, timeout=10))))
            return found

    found = await asyncio.to_thread(run)
    assert {code for code, _ in found} == {grpc.StatusCode.UNAUTHENTICATED}
    assert len({text for _, text in found}) == 1  # even a method that is not there reads the same
    assert service.sample("eul_policy_denials_total", reason="identity") == len(found)


@pytest.mark.parametrize("value", ["Basic YTpi", "Bearer", "Bearer ", "bearer  ", token_of("acme")])
async def test_other_forms_of_authorization_are_no_token(service: Service, value: str) -> None:
    def run() -> grpc.StatusCode:
        with grpc.insecure_channel(service.address) as channel, pytest.raises(grpc.RpcError) as error:
            channel.unary_unary(f"/{SERVICE}/Generate")(b"", metadata=(("authorization", value),), timeout=10)
        return error.value.code()

    assert await asyncio.to_thread(run) is grpc.StatusCode.UNAUTHENTICATED


async def test_two_tokens_are_none(service: Service) -> None:
    def run() -> grpc.StatusCode:
        metadata = tuple(("authorization", f"Bearer {token_of(tenant)}") for tenant in ("acme", "both"))
        with grpc.insecure_channel(service.address) as channel, pytest.raises(grpc.RpcError) as error:
            channel.unary_unary(f"/{SERVICE}/Generate")(b"", metadata=metadata, timeout=10)
        return error.value.code()

    assert await asyncio.to_thread(run) is grpc.StatusCode.UNAUTHENTICATED


async def test_a_message_over_the_limit_is_refused(service: Service) -> None:
    def run() -> grpc.StatusCode:
        metadata = (("authorization", f"Bearer {token_of('acme')}"),)
        with grpc.insecure_channel(service.address) as channel, pytest.raises(grpc.RpcError) as error:
            channel.unary_unary(f"/{SERVICE}/Generate")(bytes(5 << 20), metadata=metadata, timeout=10)
        return error.value.code()

    assert await asyncio.to_thread(run) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_the_request_id_comes_back(service: Service) -> None:
    def run(given: str) -> str:
        metadata = (("authorization", f"Bearer {token_of('acme')}"), ("x-request-id", given))
        with grpc.insecure_channel(service.address) as channel:
            call = channel.unary_unary("/eul_serve.v1.BundleService/ListBundles")
            _, done = call.with_call(b"", metadata=metadata, timeout=10)
        return dict(done.trailing_metadata())["x-request-id"]

    assert await asyncio.to_thread(run, "trace-7") == "trace-7"
    assert len(await asyncio.to_thread(run, "x" * 100)) == 16  # too long: the server makes its own


async def test_bundles_are_listed_by_tenant(service: Service, home: ServiceHome) -> None:
    with service.client("both") as client:
        found = await asyncio.to_thread(client.bundles)
    assert [(one.name, one.alias, one.state, one.default) for one in found] == [
        ("novels", "stable", "active", False),
        ("poems", "stable", "active", False),
    ]
    with service.client("acme") as client:
        assert [one.default for one in await asyncio.to_thread(client.bundles)] == [True]


async def test_a_bundle_is_described_to_those_who_may_use_it(service: Service, home: ServiceHome) -> None:
    def run(tenant: str, adapter: str) -> dict[str, Any]:
        with grpc.insecure_channel(service.address) as channel:
            return GenericClient(channel, token_of(tenant)).call(
                "eul_serve.v1.BundleService", "GetBundle", {"adapter": adapter}
            )

    found = await asyncio.to_thread(run, "both", "novels")
    assert found["requests"] == ["r2"]
    assert found["state"] == "BUNDLE_STATE_ACTIVE"
    assert found["baseFingerprint"] == home.fingerprint
    assert (await asyncio.to_thread(run, "acme", ""))["name"] == "poems"
    for adapter in ("novels", "nothing", "novels:canary"):
        with pytest.raises(grpc.RpcError) as error:
            await asyncio.to_thread(run, "acme", adapter)
        assert (error.value.code(), error.value.details()) == (grpc.StatusCode.PERMISSION_DENIED, REFUSAL)
    with pytest.raises(grpc.RpcError) as error:
        await asyncio.to_thread(run, "both", "unpublished")
    assert (error.value.code(), error.value.details()) == (grpc.StatusCode.PERMISSION_DENIED, REFUSAL)
