"""TLS between client and server, with an authority made for the test."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from eul_serve.address import Address
from eul_serve.client import Client, Settings
from eul_serve.errors import EngineError, InputError
from eul_serve.rpc.server import TransportSettings
from tests.eul_serve.service_home import ServiceHome, token_of


def write_pair(folder: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate for localhost and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = (folder / "cert.pem", folder / "key.pem")
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


async def test_an_encrypted_call(home: ServiceHome, tmp_path: Path) -> None:
    home.publish("poems", "stable", seed=1)
    home.write_policy(acme={"default": "poems:stable", "bundles": ["poems"]})
    certificate, key = write_pair(tmp_path)
    transport = TransportSettings(listen=Address("localhost", 0), certificate=certificate, key=key)
    async with home.serve(transport=transport) as service:
        address = f"localhost:{service.server.port}"

        def ask(settings: Settings) -> str:
            with Client(address, token_of("acme"), settings=settings) as client:
                return client.generate("hi", max_tokens=1).revision

        assert (await asyncio.to_thread(ask, Settings(ca_certificate=certificate))).startswith("sha256:")
        for distrusting in (Settings(tls=True), Settings()):
            with pytest.raises(EngineError, match="not reachable"):
                await asyncio.to_thread(ask, distrusting)


async def test_a_certificate_that_is_not_there_or_is_none(home: ServiceHome, tmp_path: Path) -> None:
    home.write_policy(acme={})
    certificate, key = write_pair(tmp_path)
    listen = Address("127.0.0.1", 0)
    with pytest.raises(InputError, match="give both"):
        TransportSettings(listen=listen, certificate=certificate)
    missing = TransportSettings(listen=listen, certificate=tmp_path / "missing", key=key)
    with pytest.raises(InputError, match="cannot read"):
        async with home.serve(transport=missing):
            pass
    certificate.write_text("no certificate")
    with pytest.raises(InputError, match="cannot listen"):
        async with home.serve(transport=TransportSettings(listen=listen, certificate=certificate, key=key)):
            pass
