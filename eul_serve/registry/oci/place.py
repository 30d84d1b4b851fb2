"""Where a registry in an OCI registry is: `oci://host[:port]/path`, and which repositories lie below it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from eul_serve.errors import InputError

MAX_REPOSITORY = 255
"""Most characters of host and repository together, which is what many registries allow."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_FORM = "oci://HOST[:PORT]/PATH, or oci+http:// for a host without TLS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A path in an OCI registry."""

    host: str
    """Host and port, as in the file of credentials."""
    path: str
    """Repository of the records of the whole registry; each bundle has one below it."""
    plain: bool
    """Whether it is spoken to without TLS."""
    scheme: str = "oci"
    """How a person wrote it, `oci` or `oci+http`."""

    @classmethod
    def parse(cls, url: str) -> Place:
        """Parse a URL.

        Args:
            url: `oci://host[:port]/path`; without TLS on this machine alone, or with `oci+http://`.

        Returns:
            The place.

        Raises:
            InputError: Another form, credentials in it, or a path that no repository may have.
        """
        try:
            parts = urlsplit(url)
            name, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise InputError(f"registry: {error}; expected {_FORM}") from None
        if "@" in parts.netloc:
            # Not echoed: what stands before the @ is a secret.
            raise InputError("registry: credentials do not belong into a URL; use `oras login` or `docker login`")
        if parts.scheme not in ("oci", "oci+http") or not name or parts.query or parts.fragment:
            raise InputError(f"registry {url!r:.200}: expected {_FORM}")
        path = parts.path.strip("/")
        for component in path.split("/"):
            check_component(component, f"registry {url!r:.200}: path")
        host = f"[{name}]" if ":" in name else name
        plain = parts.scheme == "oci+http" or name in LOOPBACK
        address = f"{host}:{port}" if port is not None else host
        return cls(host=address, path=path, plain=plain, scheme=parts.scheme)

    @property
    def base(self) -> str:
        """Where requests go, `https://host[:port]`."""
        return f"{'http' if self.plain else 'https'}://{self.host}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}/{self.path}"

    def repository(self, name: str | None) -> str:
        """Return the repository of a bundle's name, or with None that of the whole registry.

        Args:
            name: Name of a bundle.

        Returns:
            Its path, without the host.

        Raises:
            InputError: OCI does not allow the name, or it is too long below this path.
        """
        if name is None:
            return self.path
        path = f"{self.path}/{check_component(name, 'bundle name')}"
        if len(self.host) + 1 + len(path) > MAX_REPOSITORY:
            raise InputError(
                f"bundle name {name!r}: {self.host}/{path} has more than {MAX_REPOSITORY} characters, "
                "the most of a repository; choose a shorter name"
            )
        return path


def check_component(text: str, what: str) -> str:
    """Return a part of a repository's path when OCI allows it.

    Args:
        text: The part.
        what: What it is, for the message.

    Returns:
        The part, unchanged.

    Raises:
        InputError: It breaks OCI's grammar of names.
    """
    if not _COMPONENT.fullmatch(text):
        raise InputError(
            f"{what} {text!r:.100}: OCI registries allow a-z and 0-9, with one '.', one or two '_' or any number of "
            "'-' between them, and none of these at an end; choose another name"
        )
    return text
