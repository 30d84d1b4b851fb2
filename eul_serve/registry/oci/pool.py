"""urllib3 as we use it: which proxy, how long to wait, what to try again, and what its errors mean.

Nothing else in this package imports it.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from eul_serve.errors import EulError, InputError, NotFoundError
from eul_serve.registry.oci.answer import RETRIED, BrokenError
from eul_serve.registry.oci.place import LOOPBACK

if TYPE_CHECKING:
    import urllib3
    from urllib3.response import BaseHTTPResponse

CONNECT_SECONDS = 10.0
"""Longest wait for a connection."""
READ_SECONDS = 60.0
"""Longest wait for the next bytes of an answer."""
RETRIES = 4
"""How often a request is sent again."""
BACKOFF_SECONDS = 0.2
"""Wait before the second retry; each further one waits twice as long."""
RETRY_AFTER_SECONDS = 20
"""Longest wait that a registry can ask for with Retry-After."""


class Pool:
    """Connections to one registry, its token service and its storage; safe for threads."""

    def __init__(self, base: str) -> None:
        with installed():
            import urllib3
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
        parts = urlsplit(base)
        direct = parts.hostname in LOOPBACK or proxy_bypass(parts.netloc)
        proxy = None if direct else getproxies().get(parts.scheme)
        self._manager: urllib3.PoolManager = (
            urllib3.ProxyManager(proxy, timeout=timeout, maxsize=16)
            if proxy
            else urllib3.PoolManager(timeout=timeout, maxsize=16)
        )

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, *, once: bool = False
    ) -> BaseHTTPResponse:
        """Send a request and return the answer, its body not read; redirects are not followed.

        Args:
            method: HTTP method.
            url: Whole URL.
            headers: Headers.
            body: The body.
            once: Whether sending it again could do harm.

        Returns:
            The answer, to be read and closed by the caller.
        """
        from urllib3.util import Retry

        retries = Retry(
            total=RETRIES,
            connect=2,
            read=0 if once else RETRIES,
            status=0 if once else RETRIES,
            other=0,
            allowed_methods=None,
            status_forcelist=() if once else RETRIED,
            respect_retry_after_header=not once,
            backoff_factor=BACKOFF_SECONDS,
            backoff_max=5,
            retry_after_max=RETRY_AFTER_SECONDS,
            raise_on_status=False,
        )
        with wire_errors(urlsplit(url).netloc):
            return self._manager.urlopen(
                method,
                url,
                headers={"Accept-Encoding": "identity", "User-Agent": "eul-serve", **headers},
                body=body,
                retries=retries,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )


@contextmanager
def wire_errors(host: str) -> Iterator[None]:
    """Turn what goes wrong on a connection into our errors.

    Args:
        host: Whom we talk to, for the message.

    Raises:
        NotFoundError: Nobody answers there.
        InputError: The certificate is not believed.
        BrokenError: The connection broke midway.
    """
    import urllib3.exceptions

    try:
        yield
    except (urllib3.exceptions.HTTPError, ssl.SSLError) as error:
        raise _named(error, host) from error


def _named(error: Exception, host: str) -> EulError:
    from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError, SSLError

    cause = error.reason if isinstance(error, MaxRetryError) and error.reason else error
    if isinstance(cause, (NewConnectionError, ConnectTimeoutError)):
        return NotFoundError(f"registry at {host}: nobody answers; is the host right, and does it run?")
    if isinstance(cause, (SSLError, ssl.SSLError)):
        return InputError(
            f"registry at {host}: its certificate is not believed, or it has no TLS; SSL_CERT_FILE names a file of "
            "certificates to believe"
        )
    # The error's own words can hold addresses that are signed, which are secrets.
    return BrokenError(f"registry at {host}: the connection broke ({type(cause).__name__}), and again; try later")


@contextmanager
def installed() -> Iterator[None]:
    """Say in words that an optional package is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"oci:// needs the package {error.name}: pip install 'eul-serve[oci]'") from error
