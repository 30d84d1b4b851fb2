"""A server with something to hide, and the ways to ask it that attempts are made of.

`acme` may use poems:stable, which forgets r1 and r2. The base model, an older revision of poems without r2, and the
novels of `zeta` are what it must never be answered from. The engine answers with the head of the revision's digest, so
an answer tells what it was made from.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from eul_serve.address import Address
from eul_serve.client import AsyncClient, Retries, Settings
from eul_serve.errors import EulError
from eul_serve.policy import RIGHTS
from eul_serve.rpc.transport import TransportSettings
from eul_serve.v1 import bundle_service_pb2_grpc, generation_service_pb2_grpc
from eul_serve.v1 import generation_service_pb2 as pb
from tests.eul_serve.fake_engine import FakeEngine
from tests.eul_serve.identity.issuer import Issuer, rules
from tests.eul_serve.service_home import Service, ServiceHome, token_of

ISSUER = Issuer("k1")
ONCE = Settings(retries=Retries(attempts=1), timeout_seconds=20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One way to reach what is hidden."""

    name: str
    """What is tried."""
    send: Callable[[Arena], Awaitable[bool]]
    """Tries it; returns whether it got through."""
    off: Callable[[pytest.MonkeyPatch], None]
    """Switches the one defence off that stops it."""


class Arena:
    """A running server and what it hides."""

    def __init__(self, home: ServiceHome, service: Service, keys: Path, revisions: dict[str, str]) -> None:
        self.home, self.service, self.keys, self.revisions = home, service, keys, revisions

    def policy(self, **acme: Any) -> None:
        """Write the policy anew, with changes to what acme may do."""
        self.home.sections.setdefault("jwt", rules(ISSUER.publish(self.keys)))
        self.home.write_policy(
            acme={"default": "poems:stable", "bundles": ["poems:stable"], **acme},
            zeta={"default": "novels", "bundles": ["novels"], "rights": sorted(RIGHTS)},
            root={"default": "base", "base": True, "bundles": ["poems", "novels"], "rights": sorted(RIGHTS)},
        )

    @asynccontextmanager
    async def client(self, token: str | None = None) -> AsyncIterator[AsyncClient]:
        """A client of acme, or with another token."""
        async with AsyncClient(self.service.address, token or token_of("acme"), settings=ONCE) as client:
            yield client

    async def revision(self, adapter: str = "", token: str | None = None, **options: Any) -> str:
        """The revision that answered; empty where the call was refused."""
        try:
            async with self.client(token) as client:
                return (await client.generate("hi", adapter=adapter, max_tokens=1, **options)).revision
        except EulError:
            return ""

    async def hidden(self, adapter: str = "", token: str | None = None, **options: Any) -> bool:
        """Whether acme was answered from what it must not be."""
        return await self.revision(adapter, token, **options) not in ("", self.revisions["stable"])

    async def streamed(self, adapter: str) -> bool:
        """The same by a stream."""
        try:
            async with self.client() as client:
                parts = [part async for part in client.generate_stream("hi", adapter=adapter, max_tokens=2)]
        except EulError:
            return False
        return {part.revision for part in parts} != {self.revisions["stable"]}

    async def classified(self, adapter: str) -> bool:
        """The same by a classification."""
        try:
            async with self.client() as client:
                found = await client.classify("hi", [" a", " b"], adapter=adapter)
        except EulError:
            return False
        return found.revision != self.revisions["stable"]

    async def known(self, *metadata: tuple[str, Any]) -> bool:
        """Whether a call with this metadata is answered."""
        async with grpc.aio.insecure_channel(self.service.address) as channel:
            stub = generation_service_pb2_grpc.GenerationServiceStub(channel)  # type: ignore[no-untyped-call]
            request = pb.GenerateRequest(prompt=pb.Prompt(text="hi"), sampling=pb.Sampling(max_tokens=1))
            try:
                await stub.Generate(request, metadata=metadata, timeout=20)
            except grpc.aio.AioRpcError:
                return False
        return True

    async def outlives(self, take_away: Callable[[], None], token: str | None = None, **options: Any) -> bool:
        """Whether a stream that has begun runs to its end after something was taken away."""
        try:
            async with self.client(token) as client:
                parts = client.generate_stream("hi", max_tokens=60, **options)
                await anext(parts)
                take_away()
                return [part async for part in parts][-1].finish_reason == "length"
        except EulError:
            return False

    async def settle(self) -> None:
        """Let the server look at registry and policy, and carry out what it finds."""
        await self.service.server.follower.poll_policy()
        await self.service.server.follower.poll_registry()
        await self.service.server.follower.settle()

    def bundles(self, channel: grpc.aio.Channel) -> Any:
        """A stub of the bundles' service."""
        return bundle_service_pb2_grpc.BundleServiceStub(channel)  # type: ignore[no-untyped-call]


@asynccontextmanager
async def arena(home: ServiceHome, keys: Path) -> AsyncIterator[Arena]:
    """Start a server that has something to hide."""
    revisions = {
        "old": home.publish("poems", "stable", "r1", seed=1),
        "stable": home.publish("poems", "stable", "r1", "r2", seed=2),
        "novels": home.publish("novels", "stable", "r9", seed=3),
    }
    home.appoint()
    place = Arena(home, None, keys, revisions)  # type: ignore[arg-type]
    place.policy()
    further = dict.fromkeys(("admin", "openai", "page"), TransportSettings(listen=Address("127.0.0.1", 0)))
    async with home.serve(FakeEngine(home.fingerprint, step=0.01, capacity=6), **further) as place.service:
        yield place
        await asyncio.sleep(0)
