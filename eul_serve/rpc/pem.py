"""The PEM files of a server's certificate, read again and again, as they are rotated while it runs."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from eul_serve.errors import InputError

_log = logging.getLogger("eul_serve.rpc")


class PemFiles:
    """Key, certificate and, where clients need certificates too, their authorities."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        """Name the files; nothing is read yet.

        Args:
            certificate: The chain.
            key: Its private key.
            client_ca: Authorities of clients; None where clients need no certificate.
        """
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._held: tuple[bytes, ...] = ()
        self._complaint = ""

    def changed(self) -> tuple[bytes, ...] | None:
        """Return what is in the files where it differs from what was there at the last look.

        Returns:
            Key, certificate and, where there are any, authorities; None where nothing has changed.

        Raises:
            InputError: A file cannot be read, or key and certificate do not belong together.
        """
        paths = [path for path in (self._key, self._certificate, self._client_ca) if path is not None]
        try:
            found = tuple(path.read_bytes() for path in paths)
        except OSError as error:
            raise InputError(f"certificate or key: cannot read {error.filename!r}: {error.strerror}") from error
        if found == self._held:
            return None
        self.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self._held = found
        return found

    def changed_or_none(self) -> tuple[bytes, ...] | None:
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

    def load_into(self, context: ssl.SSLContext) -> None:
        """Let a context use the files, which also shows that they fit: half of a rotation must not end handshakes.

        Args:
            context: A server's context; where authorities are named, it then demands certificates of clients.

        Raises:
            InputError: The files are no certificate and its key.
        """
        try:
            context.load_cert_chain(self._certificate, self._key)
            if self._client_ca is not None:
                context.load_verify_locations(self._client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (ssl.SSLError, OSError) as error:
            raise InputError(
                f"certificate {str(self._certificate)!r}: expected PEM files of a certificate and its key: {error}"
            ) from error
