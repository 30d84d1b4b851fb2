"""The bearer token of a call, from the headers of gRPC or HTTP."""

from __future__ import annotations

from collections.abc import Iterable

from eul_serve.errors import IdentityError


def bearer_token(headers: Iterable[tuple[str, str | bytes]] | None) -> str | None:
    """Return the token of the only `authorization: Bearer TOKEN` of a call.

    Args:
        headers: What the caller sent, names in lower case.

    Returns:
        The token; None where there is none.

    Raises:
        IdentityError: There are two; what stands between us and the caller may have read the other one.
    """
    scheme, secret = authorization(headers)
    return secret if scheme == "bearer" else None


def authorization(headers: Iterable[tuple[str, str | bytes]] | None) -> tuple[str, str | None]:
    """Return scheme and secret of the only `authorization` header of a call.

    Args:
        headers: What the caller sent, names in lower case.

    Returns:
        The scheme in lower case, and what follows it; empty and None where there is none.

    Raises:
        IdentityError: There are two.
    """
    found = [value for key, value in headers or () if key == "authorization"]
    if len(found) > 1:
        raise IdentityError("the call has two `authorization` headers; send one")
    if not found or not isinstance(found[0], str):
        return "", None
    scheme, _, secret = found[0].partition(" ")
    return scheme.lower(), secret.strip() or None
