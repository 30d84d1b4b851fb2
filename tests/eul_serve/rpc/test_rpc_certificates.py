"""Client certificates, and a server's own that is read again when it changes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from eul_serve.address import Address
from eul_serve.client import AsyncClient, Settings
from eul_serve.errors import EngineError, IdentityError, InputError
from eul_serve.rpc.transport import TransportSettings
from tests.eul_serve.fake_engine import FakeEngine
from tests.eul_serve.rpc.authority import Authority
from tests.eul_serve.service_home import Service, ServiceHome, token_of

ACME, ZETA = "spiffe://corp.test/acme", "zeta.corp.test"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def serving(home: ServiceHome, authority: Authority, **transport: Any) -> AsyncIterator[Service]:
    home.publish("poems", "stable", "r1", seed=1)
    tenant = {"default": "poems", "bundles": ["poems"]}
    home.write_policy(acme={**tenant, "certificates": [ACME]}, zeta={**tenant, "certificates": [ZETA]}, plain=tenant)
    certificate, key = authority.issue("server", "localhost")
    settings = TransportSettings(
        listen=Address("localhost", 0), certificate=certificate, key=key,
        **{"client_ca": authority.path, **transport},
    )  # fmt: skip
    async with home.serve(FakeEngine(home.fingerprint, step=0.01), transport=settings) as service:
        yield service


def client(
    service: Service, authority: Authority, pair: tuple[Path, Path] | None = None, tenant: str | None = None
) -> AsyncClient:
    certificate, key = pair or (None, None)
    settings = Settings(ca_certificate=authority.path, certificate=certificate, key=key, timeout_seconds=10)
    return AsyncClient(f"localhost:{service.server.ports.grpc}", tenant and token_of(tenant), settings=settings)


async def ask(client: AsyncClient, **options: Any) -> str:
    async with client:
        return (await client.generate("hi", max_tokens=1, **options)).revision


async def test_a_certificate_alone_identifies_its_tenant(home: ServiceHome, authority: Authority) -> None:
    async with serving(home, authority) as service:
        for file, name in (("a", ACME), ("z", ZETA)):
            assert (await ask(client(service, authority, authority.issue(file, name)))).startswith("sha256:")
        # Two names of one tenant are one tenant; names that nobody has say nothing.
        many = authority.issue("m", ACME, "other.corp.test")
        assert (await ask(client(service, authority, many))).startswith("sha256:")
        async with client(service, authority, authority.issue("b", ACME)) as one:
            assert [bundle.name for bundle in await one.bundles()] == ["poems"]
            parts = [part async for part in one.generate_stream("hi", max_tokens=2)]
            assert parts[-1].finish_reason == "length"


@pytest.mark.parametrize("names", [("nobody.test",), (ACME + "/x",), (ACME.upper(),), (ACME, ZETA)])
async def test_a_certificate_of_nobody_or_of_two_is_nobody(
    home: ServiceHome, authority: Authority, names: tuple[str, ...]
) -> None:
    async with serving(home, authority) as service:
        with pytest.raises(IdentityError):
            await ask(client(service, authority, authority.issue("c", *names)))


async def test_a_certificate_of_another_authority_does_not_connect(home: ServiceHome, authority: Authority) -> None:
    (authority.folder / "other").mkdir()
    stranger = Authority(authority.folder / "other")
    async with serving(home, authority) as service:
        for pair in (stranger.issue("s", ACME), authority.issue("old", ACME, days=-1)):
            with pytest.raises(EngineError, match="not reachable"):
                await ask(client(service, authority, pair))


async def test_a_token_and_a_certificate_must_agree(home: ServiceHome, authority: Authority) -> None:
    async with serving(home, authority) as service:
        acme = authority.issue("a", ACME)
        assert (await ask(client(service, authority, acme, "acme"))).startswith("sha256:")
        with pytest.raises(IdentityError, match="different tenants"):
            await ask(client(service, authority, acme, "zeta"))
        with pytest.raises(IdentityError, match="unknown bearer token"):
            await ask(client(service, authority, acme, "nobody"))  # a bad token is not made good by a certificate
        # A certificate that says nothing opens the connection, and the token says who it is.
        assert (await ask(client(service, authority, authority.issue("o", "o.test"), "plain"))).startswith("sha256:")
        with pytest.raises(EngineError, match="not reachable"):
            await ask(client(service, authority, None, "plain"))


async def test_an_unknown_method_is_one_to_known_callers_alone(home: ServiceHome, authority: Authority) -> None:
    async with serving(home, authority) as service:
        codes = []
        for pair in (authority.issue("a", ACME), authority.issue("n", "nobody.test")):
            credentials = grpc.ssl_channel_credentials(
                authority.path.read_bytes(), pair[1].read_bytes(), pair[0].read_bytes()
            )
            async with grpc.aio.secure_channel(f"localhost:{service.server.ports.grpc}", credentials) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await channel.unary_unary("/eul_serve.v1.Nothing/Nothing")(b"", timeout=10)
                codes.append(error.value.code())
        assert codes == [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAUTHENTICATED]


async def test_a_certificate_that_is_taken_away_ends_what_runs(home: ServiceHome, authority: Authority) -> None:
    async with serving(home, authority) as service, client(service, authority, authority.issue("a", ACME)) as one:
        parts = one.generate_stream("hi", max_tokens=60)
        await anext(parts)
        home.write_policy(acme={"default": "poems", "bundles": ["poems"]})
        with pytest.raises(IdentityError):
            async for _ in parts:
                pass
        assert len(service.engine.aborted) == 1


def served_certificate(service: Service) -> str:
    return ssl.get_server_certificate(("localhost", service.server.ports.grpc))


async def test_a_new_certificate_serves_new_connections(
    home: ServiceHome, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(home, authority, client_ca=None) as service:
        first = (authority.folder / "server.pem").read_text()
        assert (await asyncio.to_thread(served_certificate, service)).split() == first.split()
        async with client(service, authority, None, "acme") as old:
            await old.generate("hi", max_tokens=1)
            # Half of a rotation: the new certificate with the old key would fail every handshake.
            new, new_key = authority.issue("renewed", "localhost")
            (authority.folder / "server.pem").write_bytes(new.read_bytes())
            assert (await asyncio.to_thread(served_certificate, service)).split() == first.split()
            assert "the certificate in use stays" in caplog.text
            (authority.folder / "server.key").write_bytes(new_key.read_bytes())
            assert (await asyncio.to_thread(served_certificate, service)).split() == new.read_text().split()
            await old.generate("hi", max_tokens=1)  # a connection that is open stays so
        assert (await ask(client(service, authority, None, "acme"))).startswith("sha256:")
        (authority.folder / "server.key").unlink()
        assert (await asyncio.to_thread(served_certificate, service)).split() == new.read_text().split()


def test_settings_that_do_not_go_together_are_refused(authority: Authority) -> None:
    certificate, key = authority.issue("server", "localhost")
    listen = Address("localhost", 0)
    with pytest.raises(InputError, match="client certificates need TLS"):
        TransportSettings(listen=listen, client_ca=authority.path)
    with pytest.raises(InputError, match="give both"):
        Settings(tls=True, certificate=certificate)
    with pytest.raises(InputError, match="needs TLS"):
        Settings(certificate=certificate, key=key)
    with pytest.raises(InputError, match="expected PEM"):
        AsyncClient("localhost:1", settings=Settings(tls=True, certificate=key, key=certificate))
