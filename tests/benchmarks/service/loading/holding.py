"""The client of the front end's benchmark: python -m loading.holding, one order a line, one answer a line.

It holds streams open that get a token a minute, and asks short questions besides, in a closed loop of some workers. It
speaks gRPC without our client, so that it costs the same beside every server, and as little as it can.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from eul_serve.v1 import generation_service_pb2 as pb
from eul_serve.v1 import generation_service_pb2_grpc as services
from loading.outcome import percentile
from loading.paced_server import HELD

PROMPT = [7] * 8
HELD_PROMPT = [HELD, *PROMPT[1:]]
HELD_TOKENS = 1000
OPEN_AT_ONCE = 200
"""Streams that are being opened at the same time."""
OPEN_SECONDS = 120.0
"""What a stream has to get its first token."""


@dataclass(slots=True)
class Told:
    """What a closed loop found."""

    latencies: list[float] = field(default_factory=list)
    """Seconds of each answer."""
    tokens: int = 0
    """Tokens of all of them."""
    errors: list[str] = field(default_factory=list)
    """Why others failed."""


class Holder:
    """Carries out orders on one connection."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._stub = services.GenerationServiceStub(channel)  # type: ignore[no-untyped-call]
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._held: list[Any] = []

    async def hold(self, streams: int) -> dict[str, Any]:
        """Open streams, and return when each has its first token."""
        gate, begin = asyncio.Semaphore(OPEN_AT_ONCE), time.monotonic()

        async def one() -> None:
            async with gate, asyncio.timeout(OPEN_SECONDS):
                self._held.append(await self._open())

        found = await asyncio.gather(*(one() for _ in range(streams)), return_exceptions=True)
        return {"seconds": time.monotonic() - begin, "open": len(self._held), **_told(map(repr, filter(None, found)))}

    async def drop(self) -> dict[str, Any]:
        """Let all open streams go."""
        count = len(self._held)
        for call in self._held:
            call.cancel()
        self._held.clear()
        return {"dropped": count, "failed": 0}

    async def unary(self, workers: int, seconds: float) -> dict[str, Any]:
        """Ask for answers of one token, in one message each."""
        request = pb.GenerateRequest(
            prompt=pb.Prompt(tokens=pb.TokenIds(ids=PROMPT)), sampling=pb.Sampling(max_tokens=1)
        )

        async def one() -> int:
            answer = await self._stub.Generate(request, metadata=self._metadata)
            return len(answer.token_ids)

        return await _closed_loop(workers, seconds, one)

    async def stream(self, workers: int, seconds: float, tokens: int) -> dict[str, Any]:
        """Ask for streamed answers, as fast as they come."""
        request = self._request(PROMPT, tokens)

        async def one() -> int:
            made = 0
            async for message in self._stub.GenerateStream(request, metadata=self._metadata):
                made += len(message.token_ids)
            return made

        return await _closed_loop(workers, seconds, one)

    async def _open(self) -> Any:
        call = self._stub.GenerateStream(self._request(HELD_PROMPT, HELD_TOKENS), metadata=self._metadata)
        while (message := await call.read()) is not grpc.aio.EOF:
            if message.token_ids:
                return call
        raise RuntimeError(f"a stream that was to stay open has ended: {await call.details()}")

    @staticmethod
    def _request(prompt: list[int], tokens: int) -> pb.GenerateStreamRequest:
        return pb.GenerateStreamRequest(
            prompt=pb.Prompt(tokens=pb.TokenIds(ids=prompt)), sampling=pb.Sampling(max_tokens=tokens)
        )


async def _closed_loop(workers: int, seconds: float, one: Callable[[], Awaitable[int]]) -> dict[str, Any]:
    """Let some workers ask, each its next question when its last is answered, and return what came of all."""
    told, begin = Told(), time.monotonic()

    async def work() -> None:
        while (sent := time.monotonic()) < begin + seconds:
            try:
                made = await one()  # not `+=` at once: it would add to what was there before the wait
                told.tokens += made
                told.latencies.append(time.monotonic() - sent)
            except grpc.aio.AioRpcError as error:
                told.errors.append(f"{error.code().name}: {error.details()}")

    await asyncio.gather(*(work() for _ in range(workers)))
    taken = time.monotonic() - begin
    return {
        "answers": len(told.latencies),
        "answers_per_second": len(told.latencies) / taken,
        "tokens_per_second": told.tokens / taken,
        "p50_ms": 1000 * percentile(told.latencies, 50),
        "p99_ms": 1000 * percentile(told.latencies, 99),
        **_told(told.errors),
    }


def _told(errors: Any) -> dict[str, Any]:
    found = list(errors)
    return {"failed": len(found), "errors": found[:3]}


async def main(address: str, token: str) -> None:
    """Carry out orders until the standard input ends."""
    loop = asyncio.get_running_loop()
    async with grpc.aio.insecure_channel(address, options=(("grpc.enable_retries", 0),)) as channel:
        holder = Holder(channel, token)
        await channel.channel_ready()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            order = json.loads(line)
            answer = await getattr(holder, order.pop("do"))(**order)
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
