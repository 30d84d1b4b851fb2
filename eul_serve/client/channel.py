"""The connection to a server, blocking or asynchronous."""

from __future__ import annotations

import json
import ssl
from typing import Any

import grpc
import grpc.aio

from eul_serve.address import Address
from eul_serve.client.settings import Retries, Settings
from eul_serve.errors import InputError

_RETRIED = ["RESOURCE_EXHAUSTED", "UNAVAILABLE"]


def open_channel(settings: Settings) -> grpc.Channel:
    """Return a blocking channel, connected lazily.

    Args:
        settings: Where the server is.

    Returns:
        The channel.

    Raises:
        InputError: The certificate cannot be read.
    """
    return _open(grpc, settings)


def open_async_channel(settings: Settings) -> grpc.aio.Channel:
    """Return a channel for the running event loop, as `open_channel` does."""
    return _open(grpc.aio, settings)


def _open(kind: Any, settings: Settings) -> Any:  # noqa: ANN401  # grpc has no types; its two modules have the same functions
    address, credentials, options = (
        str(Address.parse(settings.address)),
        _credentials(settings),
        _options(settings.retries),
    )
    if credentials is None:
        return kind.insecure_channel(address, options=options)
    return kind.secure_channel(address, credentials, options=options)


def _options(retries: Retries) -> tuple[tuple[str, str | int], ...]:
    return (
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.enable_retries", int(retries.attempts > 1)),
        ("grpc.service_config", json.dumps(_service_config(retries))),
    )


def _service_config(retries: Retries) -> dict[str, object]:
    """Return gRPC's own settings of a client: https://github.com/grpc/grpc/blob/master/doc/service_config.md."""
    if retries.attempts == 1:
        return {}
    policy = {
        "maxAttempts": retries.attempts,
        "initialBackoff": f"{retries.first_seconds:.3f}s",
        "maxBackoff": f"{retries.last_seconds:.3f}s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": _RETRIED,
    }
    throttling = {"maxTokens": retries.budget, "tokenRatio": retries.ratio}
    return {"methodConfig": [{"name": [{}], "retryPolicy": policy}], "retryThrottling": throttling}


def _credentials(settings: Settings) -> grpc.ChannelCredentials | None:
    """Return what TLS needs, checked here, as grpc would only write to its log what is wrong with it."""
    if not settings.encrypts:
        return None
    context, path = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), settings.ca_certificate
    try:
        trusted = None if path is None else path.read_bytes()
        if trusted is not None:
            context.load_verify_locations(cadata=trusted.decode("ascii"))
        if settings.certificate is None or settings.key is None:
            return grpc.ssl_channel_credentials(trusted)
        path = settings.certificate
        context.load_cert_chain(path, settings.key)
        return grpc.ssl_channel_credentials(trusted, settings.key.read_bytes(), path.read_bytes())
    except (ssl.SSLError, ValueError) as error:
        raise InputError(
            f"certificate {str(path)!r}: expected PEM certificates, found none that can be read"
        ) from error
    except OSError as error:
        raise InputError(f"certificate {str(path)!r}: cannot read: {error.strerror}") from error
