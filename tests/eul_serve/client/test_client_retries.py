"""Retries: after the time that the server names, within a budget, and never once an answer has begun."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest

from eul_serve.client import AsyncClient, Retries, Settings
from eul_serve.errors import BusyError, CapacityError, EngineError, EulError, InputError, RefusedError
from eul_serve.rpc.details import trailers
from eul_serve.rpc.status import code_of
from eul_serve.v1 import generation_service_pb2 as pb
from eul_serve.v1 import generation_service_pb2_grpc as services


@dataclass
class Flaky(services.GenerationServiceServicer):  # type: ignore[misc]  # protoc writes no types
    """Fails as often as it is told, with our own details, and notes when it was called."""

    failures: list[EulError]
    calls: list[float] = field(default_factory=list)

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> pb.GenerateResponse:
        await self._fail(context)
        return pb.GenerateResponse(text="done")

    async def GenerateStream(self, request: pb.GenerateStreamRequest, context: Any) -> None:
        await context.write(pb.GenerateStreamResponse(text="begun"))
        await self._fail(context)

    async def _fail(self, context: Any) -> None:
        self.calls.append(time.monotonic())
        if self.failures:
            error = self.failures.pop(0)
            await context.abort(code_of(error), str(error), trailers(error, str(error), "r-1"))


@asynccontextmanager
async def flaky(failures: list[EulError]) -> AsyncIterator[tuple[Flaky, Callable[..., AsyncClient]]]:
    """Run the servicer, and hand out clients with given retries."""
    server, servicer = grpc.aio.server(), Flaky(failures)
    services.add_GenerationServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    def client(**retries: Any) -> AsyncClient:
        settings = Settings(timeout_seconds=10, retries=Retries(**{"first_seconds": 0.01, **retries}))
        return AsyncClient(f"127.0.0.1:{port}", settings=settings)

    try:
        yield servicer, client
    finally:
        await server.stop(None)


async def test_what_passes_by_itself_is_tried_again_when_the_server_says() -> None:
    async with flaky([BusyError("full", "concurrent_requests", 0.3)]) as (servicer, client), client() as one:
        assert (await one.generate("hi")).text == "done"
    first, second = servicer.calls
    assert 0.25 < second - first < 3  # the server's 0.3 s, not the client's 0.01


async def test_an_engine_that_is_gone_for_a_moment_is_tried_again() -> None:
    async with flaky([EngineError("dead"), EngineError("dead")]) as (servicer, client), client() as one:
        assert (await one.generate("hi")).text == "done"
    assert len(servicer.calls) == 3


@pytest.mark.parametrize("error", [RefusedError("no"), InputError("prompt: bad"), CapacityError("no room for good")])
async def test_what_does_not_pass_by_itself_is_asked_once(error: EulError) -> None:
    async with flaky([error] * 5) as (servicer, client), client() as one:
        with pytest.raises(type(error), match=str(error)):
            await one.generate("hi")
    assert len(servicer.calls) == 1


async def test_attempts_end() -> None:
    async with flaky([EngineError("dead")] * 9) as (servicer, client), client(attempts=3) as one:
        with pytest.raises(EngineError, match="dead"):
            await one.generate("hi")
    assert len(servicer.calls) == 3


async def test_one_attempt_is_no_retry() -> None:
    async with flaky([EngineError("dead")] * 9) as (servicer, client), client(attempts=1) as one:
        with pytest.raises(EngineError, match="dead"):
            await one.generate("hi")
    assert len(servicer.calls) == 1


async def test_a_budget_keeps_a_crowd_from_asking_again() -> None:
    """Twenty calls of four attempts would be eighty; with a budget of 6, the failures soon pass half of it."""
    async with flaky([EngineError("dead")] * 200) as (servicer, client), client(budget=6) as one:
        results = await asyncio.gather(*(one.generate("hi") for _ in range(20)), return_exceptions=True)
    assert all(isinstance(result, EngineError) for result in results)
    assert 20 <= len(servicer.calls) < 40


async def test_an_answer_that_has_begun_is_never_asked_for_again() -> None:
    async with flaky([EngineError("dead")] * 5) as (servicer, client), client() as one:
        with pytest.raises(EngineError, match="dead"):
            async for _ in one.generate_stream("hi"):
                pass
    assert len(servicer.calls) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": 6},
        {"budget": 0},
        {"budget": 1001},
        {"ratio": 0.0},
        {"first_seconds": 0.0},
        {"first_seconds": 9.0},
        {"last_seconds": float("inf")},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="retries"):
        Retries(**wrong)
