"""Addresses `HOST:PORT`, and where plaintext may go."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from eul_serve.errors import InputError


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    """Name or number, without the brackets of IPv6."""
    port: int
    """0 to 65535; 0 takes a free one."""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse `HOST:PORT` or `[IPV6]:PORT`.

        Args:
            text: The address.

        Returns:
            Its parts.

        Raises:
            InputError: The text is neither.
        """
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if bracketed else host
        valid = colon and host and (bracketed or ":" not in host) and port.isascii() and port.isdigit()
        if not valid or int(port) > 65535:
            raise InputError(f"address {text!r}: expected HOST:PORT with a port of 0 to 65535, e.g. 127.0.0.1:8500")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
