"""How a server is reached: address, certificates that are read again when they change, and limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from eul_serve.address import Address
from eul_serve.errors import InputError
from eul_serve.rpc.pem import PemFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportSettings:
    """How a server is reached."""

    listen: Address
    """Where to listen."""
    certificate: Path | None = None
    """PEM certificate chain; None is plaintext."""
    key: Path | None = None
    """PEM private key of the certificate."""
    client_ca: Path | None = None
    """PEM of authorities; every connection then needs a client certificate of theirs (grpc knows no other way)."""
    insecure: bool = False
    """Whether plaintext may leave this machine."""
    max_message_bytes: int = 4 << 20
    """Longest message in bytes, both ways."""
    connection_age_seconds: int = 1800
    """Age in seconds after which clients are asked to connect again, so that load spreads over new servers."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InputError("--tls-cert and --tls-key: give both, or neither")
        if self.certificate is None and not self.listen.is_loopback and not self.insecure:
            raise InputError(
                f"--listen {self.listen}: bearer tokens would leave this machine in plaintext; give --tls-cert and "
                "--tls-key, listen on 127.0.0.1, or pass --insecure where something else encrypts"
            )
        if self.client_ca is not None and self.certificate is None:
            raise InputError("--tls-client-ca: client certificates need TLS; give --tls-cert and --tls-key")


def bind(server: grpc.aio.Server, settings: TransportSettings) -> int:
    """Let a server listen.

    Args:
        server: The server, not started.
        settings: Where, and with which certificates.

    Returns:
        The port.

    Raises:
        InputError: The address is taken or not ours, or a certificate cannot be read.
    """
    listen = str(settings.listen)
    try:
        files = pem_files(settings)
        if files is None:
            port: int = server.add_insecure_port(listen)
            return port
        port = server.add_secure_port(listen, _credentials(files, client_certificates=settings.client_ca is not None))
    except RuntimeError as error:
        raise InputError(f"address {listen}: cannot listen; name a free port of this machine") from error
    return port


def pem_files(settings: TransportSettings) -> PemFiles | None:
    """Return the files of a server's certificate; None where it speaks in plaintext."""
    if settings.certificate is None or settings.key is None:
        return None
    return PemFiles(settings.certificate, settings.key, settings.client_ca)


def _credentials(files: PemFiles, *, client_certificates: bool) -> grpc.ServerCredentials:
    """Return credentials whose files grpc looks at again at every handshake."""

    def changed() -> grpc.ServerCertificateConfiguration | None:
        found = files.changed_or_none()
        return None if found is None else _configuration(found)

    first = files.changed()
    assert first is not None, "the first look always differs"
    return grpc.dynamic_ssl_server_credentials(_configuration(first), changed, client_certificates)


def _configuration(found: tuple[bytes, ...]) -> grpc.ServerCertificateConfiguration:
    key, certificate, *authorities = found
    return grpc.ssl_server_certificate_configuration([(key, certificate)], *authorities)
