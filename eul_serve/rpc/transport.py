"""How the server is reached: address, certificates that are read again when they change, and limits."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from eul_serve.address import Address
from eul_serve.errors import InputError

_log = logging.getLogger("eul_serve.rpc")


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
        if settings.certificate is None:
            port: int = server.add_insecure_port(listen)
            return port
        port = server.add_secure_port(listen, _credentials(settings))
    except RuntimeError as error:
        raise InputError(f"address {listen}: cannot listen; name a free port of this machine") from error
    return port


def _credentials(settings: TransportSettings) -> grpc.ServerCredentials:
    files = CertificateFiles(settings)
    configuration = files.changed()
    assert configuration is not None, "the first look always differs"
    return grpc.dynamic_ssl_server_credentials(configuration, files.changed_or_none, settings.client_ca is not None)


class CertificateFiles:
    """The files of a certificate; grpc asks at every handshake whether they have changed."""

    def __init__(self, settings: TransportSettings) -> None:
        self._settings = settings
        self._held: tuple[bytes, ...] = ()
        self._complaint = ""

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what is in the files where it differs from what was there at the last look.

        Returns:
            The new certificate, key and authorities; None where nothing has changed.

        Raises:
            InputError: A file cannot be read, or key and certificate do not belong together.
        """
        settings = self._settings
        paths = [path for path in (settings.key, settings.certificate, settings.client_ca) if path is not None]
        try:
            found = tuple(path.read_bytes() for path in paths)
        except OSError as error:
            raise InputError(f"certificate or key: cannot read {error.filename!r}: {error.strerror}") from error
        if found == self._held:
            return None
        _check_pair(settings)
        self._held = found
        key, certificate, *authorities = found
        return grpc.ssl_server_certificate_configuration([(key, certificate)], *authorities)

    def changed_or_none(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what has changed; files that are wrong leave the certificate before in use, and are told of once."""
        try:
            found = self.changed()
        except InputError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                _log.error("the certificate in use stays, as the new one is refused: %s", error)
            return None
        if found is not None:
            self._complaint = ""
            _log.info("a new certificate is in use")
        return found


def _check_pair(settings: TransportSettings) -> None:
    """Read the files as TLS would: half of a rotation must not end every handshake."""
    assert settings.certificate is not None, "plaintext has no certificate"
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.certificate, settings.key)
        if settings.client_ca is not None:
            context.load_verify_locations(settings.client_ca)
    except (ssl.SSLError, OSError) as error:
        raise InputError(
            f"certificate {str(settings.certificate)!r}: expected PEM files of a certificate and its key: {error}"
        ) from error
