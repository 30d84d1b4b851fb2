"""The HTTP endpoint under TLS: client certificates, a certificate that is renewed, and connections that say nothing."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from eul_serve.address import Address
from eul_serve.errors import InputError
from eul_serve.rpc.transport import TransportSettings
from eul_serve.web import protocol, server
from tests.eul_serve.rpc.authority import Authority
from tests.eul_serve.service_home import Service, ServiceHome, token_of

ACME = "spiffe://corp.test/acme"
Pair = tuple[Path, Path]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def serving(home: ServiceHome, authority: Authority, **transport: Any) -> AsyncIterator[Service]:
    home.publish("poems", "stable", "r1", seed=1)
    tenant = {"default": "poems", "bundles": ["poems"]}
    home.write_policy(acme={**tenant, "certificates": [ACME]}, plain=tenant)
    certificate, key = authority.issue("server", "localhost")
    settings = TransportSettings(listen=Address("localhost", 0), certificate=certificate, key=key, **transport)
    async with home.serve(openai=settings) as service:
        yield service


async def ask(service: Service, authority: Authority, pair: Pair | None = None, tenant: str | None = None) -> int:
    context = ssl.create_default_context(cafile=authority.path)
    if pair:
        context.load_cert_chain(*pair)
    headers = {"authorization": f"Bearer {token_of(tenant)}"} if tenant else {}
    async with httpx.AsyncClient(verify=context, timeout=10) as http:
        return (
            await http.get(f"https://localhost:{service.server.ports.openai}/v1/models", headers=headers)
        ).status_code


async def test_a_client_certificate_says_who_calls(home: ServiceHome, authority: Authority) -> None:
    async with serving(home, authority, client_ca=authority.path) as service:
        acme = authority.issue("a", ACME)
        assert await ask(service, authority, acme) == 200
        assert await ask(service, authority, acme, "acme") == 200
        assert await ask(service, authority, acme, "plain") == 401  # somebody else's token
        assert await ask(service, authority, authority.issue("o", "o.test"), "plain") == 200
        assert await ask(service, authority, authority.issue("n", "nobody.test")) == 401
        (authority.folder / "other").mkdir()
        stranger = Authority(authority.folder / "other")
        for pair in (None, stranger.issue("s", ACME), authority.issue("old", ACME, days=-1)):
            with pytest.raises(httpx.TransportError):
                await ask(service, authority, pair, "plain")


async def test_without_an_authority_a_certificate_says_nothing(home: ServiceHome, authority: Authority) -> None:
    async with serving(home, authority) as service:
        assert await ask(service, authority, authority.issue("a", ACME)) == 401
        assert await ask(service, authority, None, "acme") == 200
        with pytest.raises(httpx.TransportError):
            async with httpx.AsyncClient() as http:  # plaintext
                await http.get(f"http://localhost:{service.server.ports.openai}/health")


async def test_a_renewed_certificate_serves_new_connections(
    home: ServiceHome, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.02)
    async with serving(home, authority) as service:

        def shown() -> str:
            return ssl.get_server_certificate(("localhost", service.server.ports.openai or 0))

        first = await asyncio.to_thread(shown)
        new, new_key = authority.issue("renewed", "localhost")
        (authority.folder / "server.pem").write_bytes(new.read_bytes())  # half of a rotation
        await asyncio.sleep(0.2)
        assert await asyncio.to_thread(shown) == first
        (authority.folder / "server.key").write_bytes(new_key.read_bytes())
        for _ in range(200):
            if (found := await asyncio.to_thread(shown)) != first:
                break
            await asyncio.sleep(0.02)
        assert found.split() == new.read_text().split()


async def test_a_connection_that_says_nothing_is_ended(
    home: ServiceHome, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.2)
    home.write_policy(acme={})
    async with home.serve(openai=TransportSettings(listen=Address("127.0.0.1", 0))) as service:
        for said in (b"", b"GET /health HTTP/1.1\r\nhost: x\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", service.server.ports.openai)
            writer.write(said)
            assert await asyncio.wait_for(reader.read(), 10) == b""
            writer.close()


async def test_an_address_that_is_taken_and_files_that_are_none(home: ServiceHome, authority: Authority) -> None:
    home.write_policy(acme={})
    async with home.serve(openai=TransportSettings(listen=Address("127.0.0.1", 0))) as service:
        taken = TransportSettings(listen=Address("127.0.0.1", service.server.ports.openai or 0))
        with pytest.raises(InputError, match="cannot listen"):
            async with home.serve(openai=taken):
                pass
    certificate, key = authority.issue("server", "localhost")
    certificate.write_text("no certificate")
    with pytest.raises(InputError, match="expected PEM files"):
        async with home.serve(
            openai=TransportSettings(listen=Address("127.0.0.1", 0), certificate=certificate, key=key)
        ):
            pass
