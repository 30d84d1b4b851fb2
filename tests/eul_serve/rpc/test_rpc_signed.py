"""Signed tokens over gRPC: rotation, revocation within a poll, and headers that try to pass by."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from eul_serve.client import AsyncClient
from eul_serve.errors import IdentityError
from eul_serve.v1 import bundle_service_pb2 as pb
from eul_serve.v1 import bundle_service_pb2_grpc as services
from tests.eul_serve.fake_engine import FakeEngine
from tests.eul_serve.identity.issuer import Issuer, rules
from tests.eul_serve.service_home import Service, ServiceHome, token_of


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer("k1")


@pytest.fixture
async def service(home: ServiceHome, issuer: Issuer, tmp_path: Path) -> AsyncIterator[Service]:
    home.publish("poems", "stable", "r1", seed=1)
    home.sections["jwt"] = rules(issuer.publish(tmp_path / "keys.json"))
    home.write_policy(acme={"default": "poems", "bundles": ["poems"], "tokens": []}, zeta={"bundles": ["poems"]})
    async with home.serve(FakeEngine(home.fingerprint, step=0.01)) as running:
        yield running


async def test_a_signed_token_answers(service: Service, issuer: Issuer) -> None:
    async with AsyncClient(service.address, issuer.token()) as client:
        assert (await client.generate("hi", max_tokens=1)).revision.startswith("sha256:")
    async with AsyncClient(service.address, token_of("zeta")) as client:  # and hashed tokens beside it
        assert [bundle.name for bundle in await client.bundles()] == ["poems"]


async def test_a_key_that_is_withdrawn_ends_what_runs_on_it(service: Service, issuer: Issuer, tmp_path: Path) -> None:
    async with AsyncClient(service.address, issuer.token()) as client:
        parts = client.generate_stream("hi", max_tokens=60)
        await anext(parts)
        rotated = Issuer("k2")
        rotated.publish(tmp_path / "keys.json")
        with pytest.raises(IdentityError, match="not accepted any more"):
            async for _ in parts:
                pass
        with pytest.raises(IdentityError, match="unknown bearer token"):
            await client.generate("hi")
    assert len(service.engine.aborted) == 1
    async with AsyncClient(service.address, rotated.token(kid="k2")) as client:
        await client.generate("hi", max_tokens=1)


async def test_rules_that_change_end_what_runs_by_them(
    service: Service, home: ServiceHome, issuer: Issuer, tmp_path: Path
) -> None:
    async with AsyncClient(service.address, issuer.token()) as client:
        parts = client.generate_stream("hi", max_tokens=60)
        await anext(parts)
        home.sections["jwt"] = rules(tmp_path / "keys.json", audience="other")
        home.write_policy(acme={"default": "poems", "bundles": ["poems"], "tokens": []})
        with pytest.raises(IdentityError):
            async for _ in parts:
                pass


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", "Bearer GOOD"), ("authorization", "Bearer other")],
        [("authorization", "Bearer other"), ("authorization", "Bearer GOOD")],
        [("authorization", "Bearer GOOD"), ("authorization", "Bearer GOOD")],
        [("authorization", "Basic GOOD")],
        [("authorization", "GOOD")],
        [("authorization", "Bearer GOOD, Bearer other")],
        [("authorization-bin", b"Bearer GOOD")],
        [("x-authorization", "Bearer GOOD")],
        [("proxy-authorization", "Bearer GOOD")],
        [("cookie", "authorization=Bearer GOOD")],
        [("x-tenant", "acme")],
        [("tenant", "acme"), ("x-forwarded-user", "acme")],
    ],
)
async def test_headers_that_try_to_pass_by_identify_nobody(
    service: Service, issuer: Issuer, headers: list[tuple[str, Any]]
) -> None:
    good = issuer.token()
    sent = [
        (key, value.replace(b"GOOD", good.encode()) if isinstance(value, bytes) else value.replace("GOOD", good))
        for key, value in headers
    ]
    async with grpc.aio.insecure_channel(service.address) as channel:
        stub = services.BundleServiceStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.ListBundles(pb.ListBundlesRequest(), metadata=sent, timeout=10)
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
        found = await stub.ListBundles(  # the control: the same token where it belongs
            pb.ListBundlesRequest(), metadata=[("authorization", f"Bearer {good}")], timeout=10
        )
    assert [bundle.name for bundle in found.bundles] == ["poems"]
