"""TLS between client and server, with an authority made for the test."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from eul_serve.address import Address
from eul_serve.client import Client, Settings
from eul_serve.errors import EngineError, InputError
from eul_serve.rpc.transport import TransportSettings
from tests.eul_serve.rpc.authority import Authority
from tests.eul_serve.service_home import ServiceHome, token_of


async def test_an_encrypted_call(home: ServiceHome, tmp_path: Path) -> None:
    home.publish("poems", "stable", seed=1)
    home.write_policy(acme={"default": "poems:stable", "bundles": ["poems"]})
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server", "localhost")
    transport = TransportSettings(listen=Address("localhost", 0), certificate=certificate, key=key)
    async with home.serve(transport=transport) as service:
        address = f"localhost:{service.server.ports.grpc}"

        def ask(settings: Settings) -> str:
            with Client(address, token_of("acme"), settings=settings) as client:
                return client.generate("hi", max_tokens=1).revision

        assert (await asyncio.to_thread(ask, Settings(ca_certificate=authority.path))).startswith("sha256:")
        for distrusting in (Settings(tls=True), Settings()):
            with pytest.raises(EngineError, match="not reachable"):
                await asyncio.to_thread(ask, distrusting)


async def test_a_certificate_that_is_not_there_or_is_none(home: ServiceHome, tmp_path: Path) -> None:
    home.write_policy(acme={})
    certificate, key = Authority(tmp_path).issue("server", "localhost")
    listen = Address("127.0.0.1", 0)
    with pytest.raises(InputError, match="give both"):
        TransportSettings(listen=listen, certificate=certificate)
    missing = TransportSettings(listen=listen, certificate=tmp_path / "missing", key=key)
    with pytest.raises(InputError, match="cannot read"):
        async with home.serve(transport=missing):
            pass
    certificate.write_text("no certificate")
    with pytest.raises(InputError, match="expected PEM files of a certificate and its key"):
        async with home.serve(transport=TransportSettings(listen=listen, certificate=certificate, key=key)):
            pass
