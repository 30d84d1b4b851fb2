"""The asynchronous client: the same answers and errors as the blocking one, and work that stops with its task."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator

import pytest

from eul_serve.client import AsyncClient, Client, Settings
from eul_serve.errors import EngineError, IdentityError, InputError, RefusedError
from tests.eul_serve.fake_engine import FakeEngine
from tests.eul_serve.service_home import Service, ServiceHome, token_of


@pytest.fixture
async def service(home: ServiceHome) -> AsyncIterator[Service]:
    home.publish("poems", "stable", seed=1)
    home.write_policy(acme={"default": "poems:stable", "bundles": ["poems"], "rights": ["logprobs"]})
    async with home.serve(FakeEngine(home.fingerprint, step=0.01)) as running:
        yield running


@pytest.fixture
async def client(service: Service) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(service.address, token_of("acme")) as client:
        yield client


async def test_it_answers_as_the_blocking_client_does(service: Service, client: AsyncClient) -> None:
    assert await client.generate("hello", max_tokens=3) == await service.ask("acme", "hello", max_tokens=3)
    found = await client.classify("It was", [" good", " bad"])
    with service.client("acme") as blocking:
        assert found == await asyncio.to_thread(blocking.classify, "It was", [" good", " bad"])
        assert await client.bundles() == await asyncio.to_thread(blocking.bundles)
        parts = await asyncio.to_thread(lambda: list(blocking.generate_stream("hello", max_tokens=3)))
    assert [part async for part in client.generate_stream("hello", max_tokens=3)] == parts
    assert await client.health()
    assert await client.health("")


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(function).parameters)
            for name, function in vars(kind).items()
            if inspect.isfunction(function) and not name.startswith("_")
        }

    assert methods(AsyncClient) == methods(Client)


async def test_errors_are_the_same_kinds(service: Service, client: AsyncClient) -> None:
    with pytest.raises(RefusedError):
        await client.generate("hi", adapter="novels")
    with pytest.raises(InputError, match="top_p"):
        await client.generate("hi", top_p=2.0)
    with pytest.raises(RefusedError):
        async for _ in client.generate_stream("hi", adapter="novels"):
            pass
    async with AsyncClient(service.address, "x") as stranger:
        with pytest.raises(IdentityError):
            await stranger.generate("hi")


async def test_a_server_that_is_not_there(unused_tcp_port: int) -> None:
    settings = Settings(timeout_seconds=5)
    async with AsyncClient(f"127.0.0.1:{unused_tcp_port}", settings=settings) as client:
        with pytest.raises(EngineError, match="not reachable"):
            await client.generate("hi")


async def test_a_cancelled_task_stops_the_engine(service: Service, client: AsyncClient) -> None:
    task = asyncio.create_task(client.generate("hello", max_tokens=50))
    await service.until(lambda: sum(service.engine.running.values()) == 1, "the request")
    task.cancel()
    await service.until(lambda: len(service.engine.aborted) == 1, "the abort")
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_stream_that_is_left_stops_the_engine(service: Service, client: AsyncClient) -> None:
    parts = client.generate_stream("hello", max_tokens=50)
    async for part in parts:
        if part.text:
            break
    await parts.aclose()
    await service.until(lambda: len(service.engine.aborted) == 1, "the abort")


async def test_many_calls_share_one_connection(service: Service, client: AsyncClient) -> None:
    answers = await asyncio.gather(*(client.generate(f"q{number}", max_tokens=2) for number in range(32)))
    assert len({answer.revision for answer in answers}) == 1
